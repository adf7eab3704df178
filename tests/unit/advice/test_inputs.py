"""What a user may name as a model and as images, and that the cache is used again only for the same files."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from vit_plasticity.advice import inputs
from vit_plasticity.data.registry import open_dataset
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import fetch


@pytest.fixture
def images(tmp_path):
    """A folder of 2 classes of 10 images each."""
    random = np.random.default_rng(0)
    folder = tmp_path / "My images!"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(random.integers(256, size=(12, 12, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_a_folder_of_images_is_prepared_once_and_anew_when_it_has_changed(images, tmp_path):
    first = inputs.dataset_folder(images, tmp_path / "cache")
    about = (first / "dataset.json").stat().st_mtime_ns
    assert inputs.dataset_folder(images, tmp_path / "cache") == first
    assert (first / "dataset.json").stat().st_mtime_ns == about
    (images / "cat" / "0.png").unlink()
    second = inputs.dataset_folder(images, tmp_path / "cache")
    assert second != first
    sizes = [sum(len(split) for split in open_dataset(folder).splits.values()) for folder in (first, second)]
    assert sizes == [20, 19]
    assert open_dataset(first).name == "My_images_"


def test_what_lies_behind_a_link_counts_and_a_circle_ends(images, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(images / "cat", elsewhere)
    (images / "dog" / "more").symlink_to(elsewhere)
    (images / "dog" / "round").symlink_to(images / "dog")
    first = inputs.dataset_folder(images, tmp_path / "cache")
    assert inputs.dataset_folder(images, tmp_path / "cache") == first
    (elsewhere / "notes.txt").write_text("one file more")
    assert inputs.dataset_folder(images, tmp_path / "cache") != first


def test_a_home_that_cannot_be_written_is_said_so_with_the_option_that_helps(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc")
    with pytest.raises(InputError, match="as --cache"):
        inputs.default_cache()


def test_a_prepared_dataset_is_used_where_it_is(images, tmp_path):
    folder = inputs.dataset_folder(images, tmp_path / "cache")
    assert inputs.dataset_folder(folder, tmp_path / "other") == folder
    assert not (tmp_path / "other").exists()


def test_a_folder_of_a_built_in_name_keeps_its_own_name(images, tmp_path):
    shutil.move(images, tmp_path / "digits")
    assert open_dataset(inputs.dataset_folder(tmp_path / "digits", tmp_path / "cache")).name == "digits_folder"


@pytest.mark.parametrize("kind", ["missing", "one class", "damaged", "empty"])
def test_images_that_cannot_serve_are_refused_in_a_sentence_and_leave_nothing(kind, images, tmp_path):
    if kind == "one class":
        shutil.rmtree(images / "dog")
    elif kind == "damaged":
        for i in range(10):
            (images / "cat" / f"{i}.png").write_bytes(b"\x89PNG nothing")
    else:
        shutil.rmtree(images)
    if kind == "empty":
        images.mkdir()
    with pytest.raises(InputError):
        inputs.dataset_folder(images, tmp_path / "cache")
    assert not [path for path in tmp_path.glob("cache/**/dataset.json")]


def test_a_model_folder_is_copied_with_provenance_and_used_where_it_has_some(model_folder, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(model_folder, plain, ignore=shutil.ignore_patterns("provenance.json"))
    copy = inputs.model_folder(plain, tmp_path / "cache")
    assert (copy / "provenance.json").is_file()
    assert inputs.model_folder(copy, tmp_path / "other") == copy
    assert inputs.model_folder(plain, tmp_path / "cache") == copy


def test_other_weights_in_a_model_folder_are_another_model(model_folder, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(model_folder, plain, ignore=shutil.ignore_patterns("provenance.json"))
    first = inputs.model_folder(plain, tmp_path / "cache")
    from safetensors.torch import load_file, save_file

    weights = load_file(plain / "model.safetensors")
    save_file({n: t + torch.ones_like(t) for n, t in weights.items()}, plain / "model.safetensors")
    assert inputs.model_folder(plain, tmp_path / "cache") != first


def test_a_shipped_model_is_found_by_its_name(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "SHIPPED", tmp_path / "shipped")
    shutil.copytree(model_folder, tmp_path / "shipped" / "small")
    assert (inputs.model_folder("small", tmp_path / "cache") / "model.safetensors").is_file()


@pytest.mark.parametrize("given", ["./nowhere", "/nowhere/at/all", "vit_nothing_patch16"])
def test_a_model_that_is_not_there_is_refused(given, tmp_path):
    with pytest.raises(InputError):
        inputs.model_folder(given, tmp_path / "cache", offline=True)
