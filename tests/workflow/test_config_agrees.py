"""A fact lives once: the schema is the manual, and configurations, stages and documents agree with it."""

import re

import pytest
import yaml
from processes import ROOT
from snakemake.utils import update_config

from vit_plasticity import status
from vit_plasticity.study import config as studies

SCHEMA = yaml.safe_load((ROOT / "src" / "vit_plasticity" / "study" / "config.schema.yaml").read_text())
SECTIONS = ("pretrain", "plasticity", "bounds", "measure", "probe", "finetune", "analysis")
OPTIONAL = {"plasticity.models", "downloads"}
"""What a study may leave out: measured are all its models; downloads change no number."""
STUDIES = sorted({*(ROOT / "workflow" / "studies").iterdir()} - {ROOT / "workflow" / "studies" / "pretrain.yaml"})
"""Those that are run for their numbers."""


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


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_sets_every_scientific_key_itself(path):
    """So that no change of the default study changes a number of another one. A study that pre-trains nothing needs no
    settings of that."""
    study = load(path)
    pretrains = any("pretrain" in entry for entry in study["catalog"]["models"].values())
    optional = OPTIONAL if pretrains else OPTIONAL | {"pretrain"}
    assert keys(SCHEMA).keys() - study.keys() <= optional
    for section, value in study.items():
        if section in SECTIONS:
            missing = keys(keys(SCHEMA)[section]).keys() - value.keys()
            assert {f"{section}.{key}" for key in missing} <= optional


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_is_what_it_says_also_over_the_default_study(path):
    """Maps merge: what the default study sets must not leak into another one."""
    alone = studies.resolve(load(path))
    merged = studies.resolve(status.load_config([ROOT / "config.yaml", path]))
    for part in alone:
        if part == "catalog":
            assert alone[part]["models"].items() <= merged[part]["models"].items()
        elif part != "pretrain" or path.stem == "smoke":
            assert merged[part] == alone[part]


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def yaml_blocks():
    for path in documents():
        for i, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)):
            yield pytest.param(block, id=f"{path.name}-{i}")


@pytest.mark.parametrize("block", [*yaml_blocks()])
def test_configuration_shown_in_a_document_is_valid(block):
    """Laid over the default study, as a reader would. Blocks of another kind (profiles) have none of our keys."""
    shown = yaml.safe_load(block)
    if not isinstance(shown, dict) or not shown.keys() & keys(SCHEMA).keys():
        pytest.skip("no configuration of a study")
    config = load(ROOT / "config.yaml")
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
