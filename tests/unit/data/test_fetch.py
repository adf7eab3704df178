"""The fetch stage: each dataset from its original archive, and the command line."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures_archives import (
    FileServer,
    domainnet,
    image_bytes,
    paper_datasets,
    pictures,
    recognisable,
    sizes,
    table_rows,
    tar,
    write_table,
)

from vit_plasticity import fetch
from vit_plasticity.data import formats, images
from vit_plasticity.data import registry as datasets
from vit_plasticity.data.downloads import Source
from vit_plasticity.data.registry import lookup, open_dataset
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A folder with all archives, served; and the table that points there."""
    folder = tmp_path_factory.mktemp("archives")
    with FileServer(folder) as server:
        server.table = paper_datasets(folder, server.url)
        yield server


@pytest.fixture
def get(archives, tmp_path, monkeypatch):
    """A function that fetches a dataset of the test table and opens it."""
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(archives.table))

    def get(name, catalog=None, **source):
        given = Source(tmp_path / "downloads", **source)
        fetch.fetch_dataset(lookup(name, catalog), tmp_path / "datasets" / name, given)
        return open_dataset(tmp_path / "datasets" / name)

    return get


# Embedded datasets


def test_digits(get):
    dataset = get("digits")
    assert sizes(dataset) == {"train": 1151, "val": 287, "test": 359}
    assert dataset.split("train").images.uniform.shape == (1151, 32, 32, 3)
    for split in dataset.splits.values():
        assert (np.bincount(split.labels, minlength=10) > 25).all()


def test_corrupted_digits_have_the_splits_of_digits(get):
    clean, corrupted = get("digits"), get("digits_c_contrast_5")
    for name, split in clean.splits.items():
        assert (split.labels == corrupted.split(name).labels).all()
    assert clean.fingerprint != corrupted.fingerprint != get("digits_c_contrast_4").fingerprint


def test_fractals_by_catalog(get):
    dataset = get("ifs", {"ifs": {"fractals": {"classes": 3, "images_per_class": 10, "image_size": 16}}})
    assert sizes(dataset) == {"train": 18, "val": 6, "test": 6}
    assert dataset.split("test").images[0].shape == (16, 16, 3)
    assert dataset.classes == ("ifs00000", "ifs00001", "ifs00002")


def test_a_subset_is_balanced_seeded_and_keeps_the_test_split(get):
    whole = get("cifar10")
    catalog = {"few": {"of": "cifar10", "per_class": 5}, "other": {"of": "cifar10", "per_class": 5, "seed": 1}}
    few, other = get("few", catalog), get("other", catalog)
    assert sizes(few) == {"train": 40, "val": 10, "test": 20} and few.classes == whole.classes
    for split, each in (("train", 4), ("val", 1)):
        assert (np.bincount(few.split(split).labels) == each).all()
    assert (few.split("test").images.uniform == whole.split("test").images.uniform).all()
    known = {image.tobytes() for split in ("train", "val") for image in whole.split(split).images.uniform}
    drawn = [image.tobytes() for split in ("train", "val") for image in few.split(split).images.uniform]
    assert len(set(drawn)) == 50 and set(drawn) <= known and recognisable(few) and recognisable(few, "val")
    assert few.fingerprint != other.fingerprint and few.fingerprint == get("few", catalog).fingerprint


def test_a_subset_makes_what_it_is_drawn_from(get, tmp_path):
    few = get("few", {"few": {"of": "digits", "per_class": 2}})
    assert sizes(few) == {"train": 10, "val": 10, "test": 359}
    assert open_dataset(tmp_path / "datasets" / "digits").name == "digits"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"of": "digits", "per_class": 142}, r"class 8 \(139\), 9 \(144\)|too few images in train and val of digits"),
        ({"of": "nowhere", "per_class": 2}, "nowhere is not a complete dataset"),
        ({"of": "few", "per_class": 2}, "which is no whole dataset"),
        ({"of": "digits", "per_class": 1}, "per_class must be a count of images, 2 or more, got 1"),
        ({"of": "digits"}, "per_class is missing"),
        (
            {"of": "digits", "per_class": 2, "short_side": 3},
            "unknown key 'short_side'; allowed are of, per_class, seed",
        ),
        ({"of": "digits", "per_class": 2, "seed": -1}, "seed must be a whole number"),
        ({"of": "../x", "per_class": 2}, "of must be the name of another dataset"),
    ],
)
def test_a_subset_that_cannot_be_is_refused(get, entry, message):
    with pytest.raises(InputError, match=message):
        get("few", {"few": entry})


# The paper's datasets, each from its original format

EXPECTED = {
    "cifar10": ({"train": 120, "val": 30, "test": 20}, 10, (32, 32, 3)),
    "cifar100": ({"train": 300, "val": 100, "test": 100}, 100, (32, 32, 3)),
    "cifar10_c_snow_5": ({"train": 60, "val": 20, "test": 20}, 10, (32, 32, 3)),
    "flowers102": ({"train": 102, "val": 102, "test": 102}, 102, (30, 40, 3)),
    "pet": ({"train": 12, "val": 3, "test": 6}, 3, (36, 36, 3)),
    "domainnet_sketch": ({"train": 15, "val": 3, "test": 6}, 3, (42, 48, 3)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_dataset_from_its_original_archive(get, name):
    counts, n_classes, shape = EXPECTED[name]
    dataset = get(name)
    assert (sizes(dataset), len(dataset.classes)) == (counts, n_classes)
    assert dataset.split("test").images[0].shape == shape
    assert all(recognisable(dataset, split) for split in counts)
    assert dataset.fingerprint == get(name).fingerprint


def test_a_built_in_dataset_under_another_name_is_stored_at_another_size(get):
    small, stored = get("pet_small", {"pet_small": {"built_in": "pet", "short_side": 18}}), get("pet")
    assert small.name == "pet_small" and sizes(small) == sizes(stored) and small.classes == stored.classes
    assert small.split("test").images[0].shape == (18, 18, 3)
    with pytest.raises(InputError, match="built_in must be the name of a dataset of the table, got 'cats'"):
        lookup("x", {"x": {"built_in": "cats"}})


def test_cifar10_keeps_classes_and_test_images(get):
    dataset = get("cifar10")
    assert dataset.classes[:3] == ("airplane", "automobile", "bird")
    assert (dataset.split("test").images.uniform == pictures(np.tile(np.arange(10), 2), seed=5)).all()


def test_severities_of_cifar10_c_are_different_images_in_one_split_from_one_download(get, archives):
    archives.requests.clear()
    four, five = get("cifar10_c_motion_blur_4"), get("cifar10_c_motion_blur_5")
    assert (four.split("test").labels == five.split("test").labels).all()
    assert (four.split("test").images.uniform != five.split("test").images.uniform).any()
    everything = np.concatenate([five.split(name).images.uniform for name in five.splits])
    original = pictures(np.tile(np.arange(10), 10), seed=24)
    assert sorted(image.tobytes() for image in everything) == sorted(image.tobytes() for image in original)
    assert archives.requests == [("/CIFAR-10-C.tar", None)]


def test_a_corruption_that_the_archive_lacks(get, monkeypatch, tmp_path, archives):
    rows = table_rows("cifar10_c_", [archives.folder / "CIFAR-10-C.tar"], archives.url)
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(write_table(tmp_path / "t.csv", rows)))
    with pytest.raises(InputError, match=r"no array CIFAR-10-C/frost\.npy"):
        get("cifar10_c_frost_1")


def test_photographs_are_stored_with_a_short_side(tmp_path, monkeypatch):
    rows = table_rows("domainnet_real", domainnet("real", per_class=3, size=400)(tmp_path), "")
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(write_table(tmp_path / "t.csv", rows)))
    fetch.fetch_dataset(lookup("domainnet_real"), tmp_path / "real", Source(tmp_path))
    assert min(open_dataset(tmp_path / "real").split("test").images[0].shape[:2]) == 256


def test_imagenet_is_brought_by_the_user(get, archives, tmp_path):
    with pytest.raises(InputError, match=r"image-net.org/download.*put it at .*downloads/ILSVRC2012_img_val.tar"):
        get("imagenet")
    for path in archives.folder.glob("ILSVRC*"):
        shutil.copy(path, tmp_path / "downloads")
    dataset = get("imagenet")
    assert sizes(dataset) == {"test": 12} and dataset.classes == ("n01", "n02", "n03")
    assert (dataset.split("test").labels == np.arange(12) % 3).all() and recognisable(dataset, "test")


def test_imagenet_as_a_folder(get, tmp_path):
    for label in range(3):
        folder = tmp_path / "downloads" / "imagenet" / f"n{label}"
        folder.mkdir(parents=True)
        (folder / "x.JPEG").write_bytes(image_bytes(pictures([label])[0]))
    assert get("imagenet").split("test").labels.tolist() == [0, 1, 2]


def test_pickles_are_not_opened_without_a_checksum(tmp_path, archives):
    entry = datasets.DatasetEntry(
        "cifar10",
        "cifar10",
        files=(datasets.RemoteFile("cifar-10-python.tar.gz", archives.url + "/cifar-10-python.tar.gz"),),
    )
    archives.requests.clear()
    with pytest.raises(InputError, match="only read from an archive whose checksum is in the table"):
        fetch.fetch_dataset(entry, tmp_path / "x", Source(tmp_path))
    assert not archives.requests


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_not_opened_when_the_checksum_is_wrong(get, tmp_path):
    (tmp_path / "downloads").mkdir()
    evil = pickle.dumps(Evil(tmp_path / "was here"))
    members = {f"cifar-10-batches-py/{name}": evil for name in ("batches.meta", "data_batch_1", "test_batch")}
    tar(tmp_path / "downloads" / "cifar-10-python.tar.gz", members)
    with pytest.raises(InputError, match=r"but cifar-10-python.tar.gz has"):
        get("cifar10")
    assert not (tmp_path / "was here").exists()


def test_pickles_that_ask_for_more_than_arrays_are_refused_whatever_the_checksum(tmp_path, monkeypatch):
    evil = pickle.dumps({"label_names": Evil(tmp_path / "was here")})
    archive = tar(tmp_path / "cifar-10-python.tar.gz", {"cifar-10-batches-py/batches.meta": evil})
    table = write_table(tmp_path / "t.csv", table_rows("cifar10", [archive], ""))
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(table))
    with pytest.raises(InputError, match=r"asks for \w+\.open, which is no array"):
        fetch.fetch_dataset(lookup("cifar10"), tmp_path / "x", Source(tmp_path, mirror=str(tmp_path)))
    assert not (tmp_path / "was here").exists()


def test_a_format_is_one_file_and_nothing_else_names_it(tmp_path, monkeypatch):
    package = Path(formats.__file__).parent
    code = """
from vit_plasticity.data.formats import dataset_format

@dataset_format
def stripes(entry, writer, source):
    writer.classes = ["a", "b"]
    import numpy as np
    for split in ("train", "test"):
        writer.extend(split, np.zeros((2, 4, 4, 3), np.uint8), [0, 1])
"""
    copy = tmp_path / "src" / "vit_plasticity"
    shutil.copytree(package.parents[1], copy, ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    (copy / "data" / "formats" / "stripes.py").write_text(code)
    row = dict.fromkeys(datasets._COLUMNS, "")
    row |= {"name": "striped", "format": "stripes", "licence": "mine", "source": "drawn"}
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(write_table(tmp_path / "t.csv", [row])))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "src"))
    command = [sys.executable, "-m", "vit_plasticity.fetch", "dataset", "striped", "--output", str(tmp_path / "x")]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert sizes(open_dataset(tmp_path / "x")) == {"train": 2, "test": 2}


def test_another_number_of_images_than_stated_is_refused(archives, tmp_path, monkeypatch):
    rows = table_rows("cifar10", [archives.folder / "cifar-10-python.tar.gz"], archives.url)
    rows[0]["test"] = "10000"
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(write_table(tmp_path / "t.csv", rows)))
    with pytest.raises(InputError, match="states"):
        fetch.fetch_dataset(lookup("cifar10"), tmp_path / "x", Source(tmp_path))
    assert not (tmp_path / "x").exists()


def test_a_full_disk_leaves_nothing_half_written(small_disk, capsys):
    output = small_disk / "digits"
    assert cli.run(fetch.main, ["dataset", "digits", "--output", str(output)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not [*small_disk.iterdir()]


def test_a_failure_leaves_no_unpacked_files(get, archives, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "read_image", lambda *arguments: 1 / 0)
    with pytest.raises(InputError, match=r"24 of 24 images cannot be used"):
        get("domainnet_clipart")
    assert not [*(tmp_path / "datasets").iterdir()]


# The command line


def test_the_command_line(archives, tmp_path, monkeypatch):
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(archives.table))
    common = ["--downloads", str(tmp_path / "downloads")]
    assert cli.run(fetch.main, ["dataset", "pet", "--output", str(tmp_path / "pet"), *common]) == 0
    assert open_dataset(tmp_path / "pet").name == "pet"
    for label, name in enumerate("abc"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number, picture in enumerate(pictures([label] * 3)):
            (tmp_path / "in" / name / f"{number}.png").write_bytes(image_bytes(picture, "PNG"))
    entry = json.dumps({"imagefolder": str(tmp_path / "in")})
    assert cli.run(fetch.main, ["dataset", "mine", "--output", str(tmp_path / "mine"), "--catalog", entry]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["dataset", "nope"],
        ["dataset", "mine", "--catalog", "{"],
        ["dataset", "mine", "--catalog", "null"],
        ["dataset", "pet", "--offline"],
        ["dataset", "pet", "--mirror", "/nowhere"],
        ["model", "m"],
        ["model", "m", "--catalog", "[]"],
    ],
)
def test_the_command_line_refuses(arguments, tmp_path, capsys):
    common = ["--output", str(tmp_path / "x"), "--downloads", str(tmp_path / "d")]
    assert cli.run(fetch.main, [*arguments, *common]) == 2
    assert "vit_plasticity.fetch: error: " in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
