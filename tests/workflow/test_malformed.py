"""A malformed configuration is refused before any job, naming the key, what it got, what is allowed."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import ALONE, BROKEN, REPEATED, ROWS
from planning import plan
from processes import ROOT, SMOKE, snakemake, write_config
from snakemake.cli import parse_config
from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import config as studies
from vit_plasticity.study import loading

SCHEMA = yaml.safe_load((ROOT / "src" / "vit_plasticity" / "study" / "config.schema.yaml").read_text())


@pytest.fixture(scope="module")
def base():
    """What Snakemake sees of the smoke study."""
    return loading.load([SMOKE])


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
    with pytest.raises(InputError) as error:
        loading.read(file)
    assert says(str(error.value), path, words), error.value
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    "file", [ROOT / "config.yaml", *(ROOT / "workflow" / "studies").iterdir()], ids=lambda f: f.name
)
def test_no_study_of_ours_repeats_a_key(file):
    loading.read(file)


def test_anchors_may_be_shared_and_recursive(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("a: &a {x: 1, a: *a}\nb: [*a, *a]\nc: {<<: *a, x: 2}\n")
    with pytest.raises(InputError) as error:
        loading.read(file)
    assert "twice" not in str(error.value) and "again" not in str(error.value)
    file.write_text("models: &a [x]\ndatasets: *a\n")
    assert loading.read(file)["datasets"] == ["x"]


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_is_no_map_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"study\.yaml"):
        loading.load([file])
    with pytest.raises(WorkflowError):
        plan(tmp_path / "work", file)
    assert not list(tmp_path.rglob("pwned"))


EMPTY_MAPS = ["models", "datasets", "components", "seeds", "evaluate_on", "finetune.lrs", "finetune.crop_scale"]


@pytest.mark.parametrize("key", EMPTY_MAPS)
def test_an_empty_map_over_a_list_is_refused(tmp_path, key):
    """Snakemake would silently keep the list."""
    over = {}
    for part in reversed(key.split(".")):
        over = {part: over}
    file = write_config(tmp_path / "over.yaml", over)
    with pytest.raises(InputError) as error:
        loading.load([SMOKE, file])
    assert says(str(error.value), key, "got {}; must be a list"), error.value
    assert str(file) in str(error.value)


def test_an_empty_map_over_a_list_is_refused_on_the_command_line(tmp_path):
    done = snakemake(tmp_path, "-n", "--config", "evaluate_on={}", check=False)
    assert done.returncode != 0
    assert "--config cannot be used:\n  - evaluate_on: got {}; must be a list" in done.stdout
    done = snakemake(tmp_path, "-n", "--config", "finetune={'steps': 77}", check=False)
    assert "steps: got '77' (a text, as --config" in done.stdout and "Traceback" not in done.stdout


FROM_THE_COMMAND_LINE = {
    "finetune={'steps': 77}": "finetune.steps: got '77' (a text, as --config makes one of each nested value",
    "finetune={steps: 77, flip: true}": "finetune.flip: got 'true' (a text, as --config",
    "finetune={'lrs': [0.1, 0.2]}": "finetune.lrs[1]: got '0.2' (a text, as --config",
    "finetune={'steps': many}": "finetune.steps: got 'many' (a text, as --config",
    "seeds=[1, 2]": "seeds[0]: got '1' (a text, as --config",
    "catalog={'datasets': {'d': {'fractals': {'classes': 3}}}}": "fractals.classes: got '3' (a text, as --config",
    "seeds=1": "seeds: got 1; must be a list",
    "study=7": "study: got 7; must be a text",
    "finetune={'step': 77}": "finetune.step: unknown key; did you mean steps?",
    "zzz=1": "zzz: unknown key",
}


@pytest.mark.parametrize(("text", "words"), FROM_THE_COMMAND_LINE.items(), ids=FROM_THE_COMMAND_LINE)
def test_nested_values_of_the_command_line_are_said_to_be_texts(text, words):
    with pytest.raises(InputError) as error:
        loading.refuse_command_line(parse_config([text]))
    assert words in str(error.value)
    assert "YAML reads" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["study=mine", "datasets=[digits]", "finetune={'precision': 'bf16'}", "evaluate_on=[]"]
)
def test_what_is_a_text_may_come_from_the_command_line(text):
    loading.refuse_command_line(parse_config([text]))


BELOW = st.recursive(
    st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(st.sampled_from("abc"), BELOW, max_size=3)


@given(base=MAPS, over=MAPS)
@settings(max_examples=200, deadline=None)
def test_files_are_laid_over_each_other_as_snakemake_does_it(base, over):
    before, expected = repr(base), copy.deepcopy(base)
    update_config(expected, over)
    assert loading._laid_over(base, over) == expected
    assert repr(base) == before


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
