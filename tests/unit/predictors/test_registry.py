"""The registry: predictors are files, found without importing them, and timed as if each were alone."""

import subprocess
import sys
import time

import pytest

from vit_plasticity import predictors
from vit_plasticity.predictors.shared import Ledger, shared


def test_predictors_are_found_without_torch():
    program = "import sys; from vit_plasticity import predictors; print(predictors.names(), 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{predictors.names()} False"


@pytest.mark.parametrize("name", predictors.names())
def test_every_predictor_loads(name):
    assert predictors.load(name).__name__ == name


def test_unknown_predictor_is_refused():
    with pytest.raises(ValueError, match="unknown predictor 'plastic'; choose from bound, "):
        predictors.load("plastic")


def test_a_file_defines_the_predictor_of_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(predictors, "__file__", str(tmp_path / "__init__.py"))
    text = "from vit_plasticity.predictors import predictor\n\n\n@predictor{}\ndef {}(task):\n    return []\n"
    (tmp_path / "a.py").write_text(text.format("", "a"))
    (tmp_path / "b.py").write_text(text.format("(trains=True)", "b"))
    (tmp_path / "helper.py").write_text("def helper(task):\n    return []\n")
    assert predictors.known.__wrapped__() == {"a": False, "b": True}
    (tmp_path / "c.py").write_text(text.format("", "d"))
    with pytest.raises(ValueError, match=r"c\.py defines the predictor 'd'"):
        predictors.known.__wrapped__()


class Slow(Ledger):
    """Parts that take 5 and 3 seconds of a clock that only they move."""

    now = 0.0

    @shared
    def base(self):
        self.now += 5
        return 1

    @shared
    def derived(self):
        self.now += 3
        return self.base + 1


def test_who_uses_a_part_pays_for_it_whoever_computed_it(monkeypatch):
    ledger = Slow()
    monkeypatch.setattr(time, "perf_counter", lambda: ledger.now)
    with ledger.clocked("first"):
        ledger.now += 1
        assert ledger.derived == 2
    with ledger.clocked("second"):
        assert ledger.derived + ledger.base == 3
        ledger.now += 2
    with ledger.clocked("third"):
        ledger.now += 7
    assert ledger.now == 1 + 5 + 3 + 2 + 7
    assert [ledger.duration(name) for name in ("first", "second", "third")] == [9, 10, 7]
    assert (ledger.seconds["derived"], ledger.duration("derived")) == (3, 8)
