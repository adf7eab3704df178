"""A malformed configuration is refused before any job, naming the key, what it got, what is allowed."""

import copy

import pytest
import yaml
from malformed import ALONE, BROKEN, REPEATED, ROWS
from planning import plan
from processes import ROOT, SMOKE, snakemake
from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

from vit_plasticity import status
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import config as studies

SCHEMA = yaml.safe_load((ROOT / "src" / "vit_plasticity" / "study" / "config.schema.yaml").read_text())


@pytest.fixture(scope="module")
def base():
    """What Snakemake sees of the smoke study."""
    return status.load_config([ROOT / "config.yaml", SMOKE])


def refusal(config):
    with pytest.raises(InputError) as error:
        studies.resolve(config)
    return str(error.value)


def says(message, path, words):
    """Whether one problem of the message is about `path` and holds `words`."""
    problems = [line.removeprefix("  - ") for line in message.splitlines() if line.startswith("  - ")]
    return any(problem.startswith(f"{path}: ") and words in problem.removeprefix(path) for problem in problems)


def test_table_is_long_enough():
    assert len(ROWS) + len(ALONE) >= 200


@pytest.mark.parametrize(("text", "path", "words"), ROWS, ids=[row[0][:60] for row in ROWS])
def test_overlay_is_refused(base, text, path, words):
    config = copy.deepcopy(base)
    update_config(config, yaml.safe_load(text))
    message = refusal(config)
    assert says(message, path, words), message


@pytest.mark.parametrize(("text", "path", "words"), ALONE, ids=[row[0][:60] for row in ALONE])
def test_whole_configuration_is_refused(text, path, words):
    message = refusal(yaml.safe_load(text))
    assert says(message, path, words), message


def test_all_problems_are_told_at_once(base):
    message = refusal(base | {"seeds": [-1], "models": [], "zzz": 1})
    assert says(message, "seeds[0]", "at least 0")
    assert says(message, "models", "at least 1")
    assert says(message, "zzz", "unknown key")


@pytest.mark.parametrize(("text", "path", "words"), REPEATED, ids=[row[0] for row in REPEATED])
def test_repeated_key_is_refused(tmp_path, text, path, words):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    for read in (lambda: studies.refuse_repeated_keys(file), lambda: status.load_config([ROOT / "config.yaml", file])):
        with pytest.raises(InputError) as error:
            read()
        assert says(str(error.value), path, words), error.value
        assert str(file) in str(error.value)


@pytest.mark.parametrize(
    "file", [ROOT / "config.yaml", *(ROOT / "workflow" / "studies").iterdir()], ids=lambda f: f.name
)
def test_no_study_of_ours_repeats_a_key(file):
    studies.refuse_repeated_keys(file)


def test_anchors_may_be_shared_and_recursive(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("a: &a {x: 1, a: *a}\nb: [*a, *a]\nc: {<<: *a, x: 2}\n")
    studies.refuse_repeated_keys(file)


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_is_no_map_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"study\.yaml"):
        status.load_config([file])
    with pytest.raises(WorkflowError):
        plan(tmp_path / "work", file)
    assert not list(tmp_path.rglob("pwned"))


COMMANDS = {
    "typo": ("finetune: {step: 3}", "finetune.step: unknown key; did you mean steps? allowed: accumulation, "),
    "repeated": ("seeds: [0]\nseeds: [1]", "seeds: given in line 1 and again in line 2"),
    "injection": ("datasets: ['$(touch pwned)']", "datasets[0]: got '$(touch pwned)'; a name is made of letters"),
}


@pytest.mark.parametrize(("text", "words"), COMMANDS.values(), ids=COMMANDS)
def test_snakemake_refuses_before_any_job(tmp_path, text, words):
    """The command itself: a message without a traceback, an exit status, and nothing done."""
    study = tmp_path / "study.yaml"
    study.write_text(text)
    done = snakemake(tmp_path / "work", config=[SMOKE, study], check=False)
    assert done.returncode != 0
    assert words in done.stdout
    assert "Traceback" not in done.stdout
    assert {path.name for path in (tmp_path / "work").iterdir()} <= {".snakemake"}
    assert not list(tmp_path.rglob("pwned"))
