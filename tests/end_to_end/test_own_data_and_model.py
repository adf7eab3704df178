"""One's own images and models by configuration alone, through Snakemake: what docs/own-data.md tells its readers.

The page's own blocks are run, with small sizes laid over them: its Python makes a model folder from a checkpoint, and
its study is a study of that model.
"""

import re

import numpy as np
import pytest
import timm
import torch
from fixtures_archives import pictures
from PIL import Image
from processes import ROOT, stage
from safetensors.torch import load_file
from study_runs import rows, snakemake

from vit_plasticity import vit
from vit_plasticity.data.registry import open_dataset

PAGE = (ROOT / "docs" / "own-data.md").read_text()
TAG = "test_vit.r160_in1k"
CLASSES = ("daisies", "roses", "tulips")
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
OVERLAY = """
models: [my_vit, from_timm]
datasets: [my_images, own_split]
components: [ln1, mha]
seeds: [0]
catalog:
  models:
    from_timm: {timm: %s}
  datasets:
    own_split: {imagefolder: data/own_split, short_side: 64}
downloads: {offline: true, mirror: hub}
plasticity: {pairs: 8}
measure: {pairs: 8, images: 8, local_images: 4, batches: 1, batch_size: 8}
finetune: {lrs: [0.01, 0.1], steps: 6, evaluation_period: 3, batch_size: 6, warmup_steps: 2, precision: fp32}
analysis: {bootstrap: 50, permutations: 50}
"""


def block(language):
    """The code block of a language on the page."""
    return re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]


def photographs(folder, per_class, seed=0):
    """A folder of class folders; no two photographs have the same size, and some are upright, grey or transparent."""
    random = np.random.default_rng(seed)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            width, height = random.integers(70, 200, 2)
            image = Image.fromarray(pictures([label], 200, seed + number)[0, :height, :width])
            if number == 0:
                image.convert("L").save(folder / name / "grey.png")
            elif number == 1:
                image.convert("RGBA").save(folder / name / "transparent.webp", lossless=True)
            else:
                image.save(folder / name / f"{number}.JPG", "JPEG")
        (folder / name / "notes.txt").write_text("not an image")


def own_model(folder, monkeypatch):
    """Run the page's Python, which makes the folder data/my_vit below `folder` from a checkpoint."""
    torch.manual_seed(0)
    trained = timm.create_model("vit_small_patch16_224", num_classes=10, **SMALL)
    torch.save(trained.state_dict(), folder / "checkpoint.pth")
    small = ", ".join(f"{key}={value}" for key, value in SMALL.items())
    code = block("python").replace("num_classes=10", f"num_classes=10, {small}").replace("/data/", "data/")
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        exec(code, {})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder in which a user has images, a model of their own, a mirror of timm's, and has run the study."""
    folder = tmp_path_factory.mktemp("user")
    photographs(folder / "data/my_images", 8)
    photographs(folder / "data/photographs", 5, seed=100)
    photographs(folder / "data/own_split/train", 6, seed=200)
    photographs(folder / "data/own_split/test", 3, seed=300)
    own_model(folder, pytest.MonkeyPatch())
    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model(TAG), folder / "hub/timm" / TAG, safe_serialization=True)
    page = re.sub(r"(my_vit: ){timm: .*?}", r"\1{local: /data/my_vit}", block("yaml"))
    (folder / "mine.yaml").write_text(page.replace("/data/", "data/"))
    (folder / "small.yaml").write_text(OVERLAY % TAG)
    run = snakemake(folder, config=config(folder))
    assert run.status == 0, run.said
    return folder


def config(folder):
    return [folder / "mine.yaml", folder / "small.yaml"]


def test_photographs_of_all_sizes_are_kept_as_they_are_and_trained_on(study):
    dataset = open_dataset(study / "resources/datasets/my_images")
    assert dataset.classes == CLASSES
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 15, "val": 3, "test": 6}
    train = dataset.split("train").images
    assert train.uniform is None and len({image.shape for image in train}) == len(train)


def test_a_split_of_ones_own_and_a_short_side_are_respected(study):
    dataset = open_dataset(study / "resources/datasets/own_split")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 15, "val": 3, "test": 9}
    assert {min(image.shape[:2]) for image in dataset.split("train").images} == {64}


def test_a_model_folder_keeps_its_weights_and_its_preprocessing(study):
    given, fetched = study / "data/my_vit", study / "resources/models/my_vit"
    assert (given / "model.safetensors").read_bytes() == (fetched / "model.safetensors").read_bytes()
    model = vit.load(fetched)
    assert [block.attn.num_heads for block in model.blocks] == [3, 3]
    checkpoint = torch.load(study / "checkpoint.pth", weights_only=True)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in checkpoint.items())
    preprocessing = vit.preprocessing(model)
    assert (preprocessing.size, preprocessing.mean, preprocessing.std) == (32, (0.5,) * 3, (0.5,) * 3)


def test_a_tag_of_timm_comes_from_the_mirror(study):
    assert (study / "resources/models/from_timm/model.safetensors").read_bytes() == (
        study / "hub/timm" / TAG / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("model", ["my_vit", "from_timm"])
@pytest.mark.parametrize("dataset", ["my_images", "own_split"])
def test_every_cell_is_in_the_summary(study, model, dataset):
    summary = {(r["model"], r["dataset"], r["component"]): r for r in rows(study, "mine", "summary")}
    for component in ("ln1", "mha"):
        row = summary[model, dataset, component]
        assert row["n_seeds"] == 1 and row["n_runs"] == 2 and row["lr"] in (0.01, 0.1)
        assert row["plasticity"] > 0 and 0 <= row["test_accuracy_mean"] <= 1
        assert row["probe_accuracy"] > 0.6  # the colours of the classes are there, the right way round
    assert len(summary) == 8


def test_only_the_component_moves_from_the_weights_that_were_given(study):
    cell = study / "results/mine/finetune/my_vit/my_images/ln1/seed=0"
    trained, given = load_file(cell / "trained.safetensors"), load_file(study / "data/my_vit/model.safetensors")
    assert {name for name in trained if name.startswith("blocks.")} == {name for name in given if ".norm1." in name}
    assert trained["head.weight"].shape == (3, 24)


def test_changed_images_are_read_again_when_told_and_only_their_cells_run(study):
    run = snakemake(study, "-n", "--forcerun", "resources/datasets/my_images", config=config(study))
    assert run.outputs("fetch_dataset") == ["resources/datasets/my_images"] and not run.outputs("fetch_model")
    cells = [f"results/mine/finetune/{m}/my_images/{c}/seed=0" for m in ("from_timm", "my_vit") for c in ("ln1", "mha")]
    assert sorted(run.outputs("finetune")) == [f"{cell}/runs.parquet" for cell in cells]


def test_the_tables_so_far_can_be_had_without_all_cells(study, tmp_path):
    arguments = ["--results", "results/mine", "--study", "mine", "--output", tmp_path]
    done = stage("correlate", *arguments, cwd=study, warm=False)
    assert "8 measurements, 8 cells, 16 runs" in done.stdout


def test_the_status_of_the_study(study):
    done = stage("status", "--configfile", "mine.yaml", "small.yaml", cwd=study, warm=False)
    assert "mine: 8 cells, 8 done" in done.stdout
