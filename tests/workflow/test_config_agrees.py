"""A fact lives once: the schema is the manual, and configurations, stages and documents agree with it."""

import json
import re
import subprocess

import pytest
import yaml
from processes import ROOT, SNAKEMAKE, snakemake
from snakemake.utils import update_config

from vit_plasticity.study import config as studies

SCHEMA = yaml.safe_load((ROOT / "src" / "vit_plasticity" / "study" / "config.schema.yaml").read_text())
OPTIONAL = {"plasticity.models", "downloads"}
"""What the default study leaves out: measured are all its models; downloads change no number."""
PAPER = sorted((ROOT / "workflow" / "studies").glob("paper*.yaml"))


def keys(schema):
    return schema.get("properties", {})


def load(path):
    return yaml.safe_load(path.read_text())


def test_config_and_schema_have_the_same_keys():
    config = load(ROOT / "config.yaml")
    assert config.keys() == keys(SCHEMA).keys()
    for section, value in config.items():
        known = keys(keys(SCHEMA)[section]).keys()
        if known:
            assert {f"{section}.{key}" for key in value.keys() ^ known} <= OPTIONAL


def test_every_section_and_key_of_the_schema_is_explained():
    """By a description of its own, or by one of the shared kind that it refers to."""

    def unexplained(schema, path):
        for key, sub in keys(schema).items():
            shared = SCHEMA["$defs"].get(sub.get("$ref", "").rpartition("/")[2], {})
            if not ("description" in sub or "description" in shared or key in self_explaining):
                yield f"{path}{key}"
            yield from unexplained(sub, f"{path}{key}.")

    self_explaining = {"optimizer", "weight_decay", "seed"}
    assert [*unexplained(SCHEMA, "")] == []
    assert SCHEMA["additionalProperties"] is False


def test_the_schema_is_closed_everywhere():
    def open_maps(schema, path=""):
        if not isinstance(schema, dict):
            return
        if schema.get("type") == "object" and "additionalProperties" not in schema:
            yield path
        for key, sub in schema.items():
            yield from open_maps(sub, f"{path}/{key}")

    assert [*open_maps(SCHEMA)] == []


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_study_of_the_paper_says_how_it_trains_and_measures(path):
    """So that no change of a default changes what was published."""
    study = load(path)
    for section in ("plasticity", "finetune"):
        left_out = {f"{section}.{key}" for key in keys(keys(SCHEMA)[section]).keys() - study[section].keys()}
        assert left_out <= OPTIONAL


def test_a_study_is_one_file(tmp_path):
    """An own dataset and an own model in ten lines: nothing of the default study, all else from the schema."""
    (tmp_path / "model").mkdir()
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
    text = f"""\
study: mine
models: [my_vit]
datasets: [my_images]
components: [mha, ln1]
seeds: [0]
catalog:
  models: {{my_vit: {{local: {tmp_path}/model}}}}
  datasets: {{my_images: {{imagefolder: {tmp_path}/images}}}}
plasticity: {{source: my_images}}
"""
    assert text.count("\n") <= 10
    file = tmp_path / "my.yaml"
    file.write_text(text)
    done = snakemake(tmp_path / "work", "-n", "--printshellcmds", config=file)
    counted = {rule: n for rule, n in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}
    assert counted | {"total": None} == {
        "fetch_dataset": "1", "fetch_model": "1", "plasticity": "2", "measure": "1", "probe": "1", "finetune": "2",
        "correlate": "1", "plots": "1", "all": "1", "total": None,
    }  # fmt: skip
    trained = [json.loads(given) for given in re.findall(r"warm finetune .* --params '(.*?)'", done.stdout)]
    assert len(trained) == 2
    for given in trained:
        assert given["flip"] is True and given["crop_scale"] == [0.08, 1.0]
        assert given == {key: default["default"] for key, default in keys(keys(SCHEMA)["finetune"]).items()}


def test_config_yaml_is_read_where_no_file_is_given_also_with_config(tmp_path):
    command = [SNAKEMAKE, "-n", "--directory", tmp_path, "--config", "study=other"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^finetune +42$", done.stdout, re.MULTILINE)
    assert "results/other/finetune/vit_mini" in done.stdout


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def yaml_blocks():
    for path in documents():
        for i, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)):
            yield pytest.param(block, id=f"{path.name}-{i}")


@pytest.mark.parametrize("block", [*yaml_blocks()])
def test_configuration_shown_in_a_document_is_valid(block, tmp_path):
    """A study as it stands, a part of one laid over the default study. Profiles have none of our keys.

    The reader's own folders exist and have classes."""
    for name in "ab":
        (tmp_path / name).mkdir()
    shown = yaml.safe_load(re.sub(r"(?<=[ :])/[\w/.-]+", str(tmp_path), block))
    if not isinstance(shown, dict) or not shown.keys() & keys(SCHEMA).keys():
        pytest.skip("no configuration of a study")
    config = {} if "study" in shown else load(ROOT / "config.yaml")
    update_config(config, shown)
    studies.resolve(config)


def test_keys_named_in_documents_exist():
    """Such as `finetune.lrs` or `catalog.datasets` in running text."""
    sections = "|".join(keys(SCHEMA))
    for path in documents():
        for name in re.findall(rf"`((?:{sections})\.[a-z_.]+)`", path.read_text()):
            place = SCHEMA
            for key in name.split("."):
                assert key in keys(place), f"{path.name} names {name}, which the schema does not have"
                place = keys(place)[key]
