"""What was made differently does not stand in one table, and the message says which files differ in what."""

from pathlib import Path

import pytest

from vit_plasticity.analysis import sources
from vit_plasticity.runtime.cli import InputError

KEY = {"model": "m", "dataset": "d", "component": "mha"}


def about(**changes):
    return {
        "study": "s", "stage": "plasticity", "rev": 1, "key": KEY, "settings": {"pairs": 16, "seed": 0},
        "inputs": {"model": "aaaa", "dataset": "bbbb", "source": "cccc"}, "provenance": {"git_commit": "1"},
    } | changes  # fmt: skip


def refusal(function, *abouts):
    arguments = ["plasticity"] if function is sources.refuse_mixed else []
    paths = [Path(f"{i}.parquet") for i in range(len(abouts))]
    with pytest.raises(InputError) as caught:
        function(*arguments, paths, abouts)
    return str(caught.value)


@pytest.mark.parametrize("field, value", [("rev", 2), ("stage", "finetune"), ("study", "t")])
def test_stage_study_and_revision_are_the_same(field, value):
    message = refusal(sources.refuse_mixed, about(), about(), about(**{field: value}))
    assert f"tables of different {field} cannot be mixed" in message
    assert f"0.parquet and 1 more: {about()[field]!r}; 2.parquet: {value!r}" in message


def test_settings_are_the_same_and_only_those_that_differ_are_named():
    message = refusal(sources.refuse_mixed, about(), about(), about(settings={"pairs": 64, "seed": 0}))
    assert '0.parquet and 1 more: {"pairs": 16}; 2.parquet: {"pairs": 64}' in message and "seed" not in message
    assert "no settings recorded" in refusal(sources.refuse_mixed, about(), about(settings=None))


def test_only_fine_tuning_may_have_other_settings_on_another_dataset():
    other = {"key": KEY | {"dataset": "e"}, "settings": {"lrs": [1]}}
    tables = [about(stage="finetune"), about(stage="finetune", **other)]
    sources.refuse_mixed("finetune", ["a", "b"], tables)
    assert "different settings" in refusal(sources.refuse_mixed, about(), about(**other))
    same = [about(stage="finetune"), about(stage="finetune", key=KEY | {"seed": 1}, settings={"lrs": [1]})]
    assert "different settings" in refusal(sources.refuse_mixed, *same)


def test_predictors_have_settings_of_their_own():
    keys = [{"predictor": name, "model": "m", "dataset": "d"} for name in ("fisher", "snip")]
    tables = [about(stage="measure", key=key, settings={"n": i}) for i, key in enumerate(keys)]
    sources.refuse_mixed("measure", ["a", "b"], tables)


@pytest.mark.parametrize("name", ["model", "dataset", "source"])
def test_a_name_stands_for_the_same_contents_in_all_stages(name):
    changed = about(inputs=about()["inputs"] | {name: "x" * 64})
    stage = {"stage": "finetune"} if name != "source" else {}
    message = refusal(sources.refuse_other_inputs, about(), changed | stage)
    assert f"{name} " in message and f"{'x' * 12}…" in message and "0.parquet" in message
    renamed = changed | {"key": KEY | {name: "other"}, "stage": "probe"}
    sources.refuse_other_inputs(["a", "b"], [about(), renamed])


def test_what_a_table_says_of_its_sources():
    one, two = about(), about(key=KEY | {"dataset": "e"}, provenance={"git_commit": "2"})
    found = sources.describe([one, two])
    assert found["settings"] == [one["settings"]] and found["n_files"] == 2
    assert found["provenance"] == [{"git_commit": "1"}, {"git_commit": "2"}]
    assert found["fingerprint"] == sources.describe([two, one])["fingerprint"]
    assert found["fingerprint"] != sources.describe([one, about(rev=2)])["fingerprint"]
