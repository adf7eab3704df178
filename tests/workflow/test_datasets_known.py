"""What is known of datasets before any job: where they come from, and that they cannot serve."""

import pytest
from planning import plan
from processes import smoke_config

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import config as studies


def catalog(**datasets):
    return {f"catalog__datasets__{name}": entry for name, entry in datasets.items()}


def test_a_subset_is_made_from_its_whole(tmp_path):
    images = tmp_path / "images" / "a"
    images.mkdir(parents=True)
    entries = catalog(mine={"imagefolder": str(images.parent)}, few={"of": "mine", "per_class": 3})
    jobs = plan(tmp_path / "study", smoke_config(datasets=["few"], evaluate_on=[], **entries))
    assert {job.wildcards for job in jobs if job.rule == "fetch_dataset"} >= {"few", "mine"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"datasets": ["d"], **catalog(d={"imagefolder": "/nowhere"})},
            r"datasets\[0\]: dataset d: the folder /nowhere does not exist",
        ),
        (
            {"plasticity__source": "d", **catalog(d={"imagefolder": "nowhere/at all"})},
            r"plasticity.source: dataset d: the folder nowhere/at all does not exist",
        ),
        (
            {"datasets": ["few"], **catalog(few={"of": "zebra", "per_class": 3})},
            r"catalog.datasets.few.of: unknown dataset",
        ),
        ({"datasets": ["digits", "imagenet"]}, r"datasets\[1\]: dataset imagenet: it has a test split only"),
        (
            {"finetune__batch_size": 1152},
            "batch_size: got 1152 for vit_smoke on digits, which has 1151 training images",
        ),
        (
            {"datasets": ["few"], "finetune__batch_size": 64, **catalog(few={"of": "digits", "per_class": 4})},
            "got 64 for vit_smoke on few, which has 30 training images",
        ),
        (
            {"evaluate_on": [{"trained_on": "digits", "tested_on": ["pet"]}]},
            r"evaluate_on\[0\].tested_on: pet has 37 classes, digits has 10",
        ),
    ],
)
def test_what_cannot_serve_is_refused_before_any_job(changes, message):
    changes = {"evaluate_on": []} | changes
    with pytest.raises(InputError, match=message):
        studies.resolve(smoke_config(**changes))


def test_a_folder_without_classes_is_a_source_and_no_target(tmp_path):
    (tmp_path / "1.png").write_bytes(b"x")
    entries = catalog(flat={"imagefolder": str(tmp_path)})
    assert studies.resolve(smoke_config(plasticity__source="flat", **entries))
    with pytest.raises(InputError, match="has no folders of classes; without them it serves as a source"):
        studies.resolve(smoke_config(datasets=["flat"], evaluate_on=[], **entries))


def test_a_dataset_that_was_fetched_needs_its_folder_no_more(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resources" / "datasets" / "d").mkdir(parents=True)
    assert studies.resolve(smoke_config(datasets=["d"], evaluate_on=[], **catalog(d={"imagefolder": "/nowhere"})))


def notes(tmp_path, model, **images):
    (tmp_path / "images" / "a").mkdir(parents=True, exist_ok=True)
    entries = catalog(mine={"imagefolder": str(tmp_path / "images"), **images})
    models = {"models": ["m"], "catalog__models__m": model}
    return [*studies.notes(studies.resolve(smoke_config(datasets=["mine"], evaluate_on=[], **models, **entries)))]


def test_images_stored_smaller_than_a_model_takes_them_are_reported(tmp_path, capfd):
    for tag, size in (("vit_base_patch16_384.augreg_in21k", 384), ("vit_small_patch14_dinov2.lvd142m", 518)):
        (note,) = notes(tmp_path, {"timm": tag})
        assert f"m takes images of {size} pixels, but those of mine" in note
        assert f"at most 256: write short_side: {size} beside imagefolder" in note
        assert not notes(tmp_path, {"timm": tag}, short_side=size)
    assert not notes(tmp_path, {"timm": "vit_small_patch16_224.augreg_in21k"})
    assert notes(tmp_path, {"timm": "vit_small_patch16_224.augreg_in21k"}, short_side=223)


def test_a_local_model_says_what_it_takes(tmp_path):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "config.json").write_text('{"pretrained_cfg": {"input_size": [3, 448, 448]}}')
    (note,) = notes(tmp_path, {"local": str(tmp_path / "local")})
    assert "m takes images of 448 pixels" in note


def test_a_plan_says_it(tmp_path, capfd):
    (tmp_path / "images" / "a").mkdir(parents=True)
    entries = catalog(mine={"imagefolder": str(tmp_path / "images"), "short_side": 8})
    plan(tmp_path / "study", smoke_config(datasets=["mine"], evaluate_on=[], **entries))
    assert "note: vit_smoke takes images of" in capfd.readouterr().err
