"""What a configuration may hold that reaches a shell: paths, tags and mirrors are passed as they are, and run nothing.

Names of studies, models and datasets reach shells and paths too; `malformed` holds that nothing but letters, digits,
"_", "." and "-" passes there.
"""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from planning import plan
from processes import smoke_config, snakemake

EVIL = 'it\'s "a" `touch pwned1` $(touch pwned2); touch pwned3 & {output} {{x}} %s \\ é\n#\t* folder'
"""A name of a folder that a careless quotation would run, expand, split or format."""


@pytest.fixture
def images(tmp_path):
    """A small folder of images of two classes, in a place with that name."""
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        folder = tmp_path / EVIL / label
        folder.mkdir(parents=True)
        for i in range(8):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / EVIL


def test_paths_reach_their_stage_and_nothing_else(smoke, images, tmp_path):
    """Datasets from a folder, models from a folder, a mirror: all with that name, through the real commands."""
    model = shutil.copytree(smoke / "resources" / "models" / "vit_smoke", tmp_path / f"model {EVIL}")
    config = smoke_config(
        models=["mine"],
        datasets=["my_images"],
        evaluate_on=[],
        plasticity__source="my_images",
        catalog__datasets__my_images={"imagefolder": str(images)},
        catalog__models__mine={"local": str(model)},
        downloads={"mirror": f"/nowhere/{EVIL}"},
    )
    study = tmp_path / "study"
    snakemake(study, "resources/datasets/my_images", "resources/models/mine", config=config)
    about = json.loads((study / "resources" / "datasets" / "my_images" / "dataset.json").read_text())
    assert about["classes"] == ["a", "b"]
    assert EVIL in json.loads((study / "resources" / "models" / "mine" / "provenance.json").read_text())["source"]
    assert not [*tmp_path.rglob("pwned*")]


@pytest.mark.parametrize(
    "options",
    [
        {"catalog__models__vit_smoke": {"timm": EVIL}},
        {"catalog__models__vit_smoke": {"local": EVIL}},
        {"catalog__datasets__d": {"imagefolder": EVIL}, "datasets": ["d"], "evaluate_on": []},
        {"downloads": {"mirror": EVIL}},
    ],
    ids=["timm", "local", "imagefolder", "mirror"],
)
def test_planning_runs_nothing(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study" / EVIL / "a class").mkdir(parents=True)
    assert plan(tmp_path / "study", smoke_config(**options))
    assert not [*tmp_path.rglob("pwned*")]
