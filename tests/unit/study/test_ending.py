"""The last words of a run."""

import os

from vit_plasticity.study import ending

ANSWER = "**Study**\n\nSmall.\n\n**Answer**\n\nTrain mha\\_x.\n\nMore.\n\n**Could it be known before?**\n\nNo.\n\n"


def test_the_answer_and_the_table_are_told_when_they_are_new(tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    assert ending.told(tmp_path, 0) == ""
    (tables / "answer.rst").write_text(ANSWER)
    (tables / "accuracy.csv").write_text("component,digits\nmha,91.5 ± 0.2\nfc1,9\n")
    os.utime(tables / "answer.rst", (100, 100))
    assert ending.told(tmp_path, 101) == ""
    said = ending.told(tmp_path, 99)
    assert said.startswith("\n\nTrain mha_x.\n\nNo.\n\ncomponent  digits\nmha        91.5 ± 0.2\nfc1        9\n\n")
    assert "More" not in said and "Small" not in said
    assert str(tables / "answer.html") in said
