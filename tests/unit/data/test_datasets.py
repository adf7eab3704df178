"""Datasets: the table and its look-up, the fixed splits, and a dataset on disk, written and read."""

import csv
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from fixtures_archives import table_rows, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_plasticity.data import formats
from vit_plasticity.data import registry as datasets
from vit_plasticity.data.registry import lookup, open_dataset, registry
from vit_plasticity.data.splits import held_out, redrawn, split_labels
from vit_plasticity.data.store import create
from vit_plasticity.runtime.cli import InputError

# The table


def test_the_table_names_the_datasets_of_the_paper():
    names = set(registry())
    assert {"digits", "digits_c_snow_5", "fractals", "cifar10", "cifar100", "flowers102", "pet", "imagenet"} <= names
    for corruption in ("contrast", "gaussian_noise", "motion_blur", "snow", "speckle_noise"):
        assert {f"cifar10_c_{corruption}_{severity}" for severity in range(1, 6)} <= names
    assert sum(name.startswith("cifar10_c_") for name in names) == 19 * 5
    assert sum(name.startswith("domainnet_") for name in names) == 6


def test_every_row_is_well_formed():
    for entry in registry().values():
        assert entry.format in formats.known()
        assert entry.licence and entry.source
        for file in entry.files:
            assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.checksum), file
            assert file.url or file.note, file
    files = [file for entry in registry().values() for file in entry.files]
    assert len({file.name for file in files}) == len(set(files)), "a mirror holds files by their names"


def test_checksums_agree_with_torchvision():
    from torchvision import datasets as tv

    published = {base.filename: base.tgz_md5 for base in (tv.CIFAR10, tv.CIFAR100)}
    published |= dict(tv.Flowers102._file_dict.values())
    published |= {url.rpartition("/")[2]: md5 for url, md5 in tv.OxfordIIITPet._RESOURCES}
    published |= {name: md5 for name, md5 in tv.imagenet.ARCHIVE_META.values() if "train" not in name}
    ours = {file.name: file.checksum for entry in registry().values() for file in entry.files}
    assert {name: ours[name] for name in published} == {name: f"md5:{md5}" for name, md5 in published.items()}


def test_a_name_pattern_stands_for_one_dataset_per_choice():
    entry = lookup("cifar10_c_motion_blur_4")
    assert entry.variant == ("motion_blur", "4")
    assert entry.files == lookup("cifar10_c_frost_1").files


def test_importing_the_registry_is_light():
    code = "import sys, vit_plasticity.data.registry; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "torchvision", "pandas", "pyarrow", "PIL", "scipy", "sklearn"} & set(modules)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar1O", "did you mean cifar10 or cifar100"),
        ("domainnet_clipar", "did you mean domainnet_clipart"),
        ("zebra", "Choose from digits, digits_c_{contrast"),
        ("../cifar10", "use letters"),
        ("", "use letters"),
        ("a b", "use letters"),
        ("$(rm)", "use letters"),
        ("cifar10\n", "use letters"),
    ],
)
def test_unknown_and_unfit_names_are_refused(name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        lookup(name)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("/a/path", "write one of"),
        ({}, "write one of"),
        ({"folder": "x"}, "write one of"),
        ({"imagefolder": "x", "fractals": {}}, "write one of"),
        ({"imagefolder": 3}, "must be a path"),
        ({"imagefolder": ""}, "must be a path"),
        ({"imagefolder": "x", "short_side": 0}, "count of pixels"),
        ({"imagefolder": "x", "short_side": "big"}, "count of pixels"),
        ({"imagefolder": "x", "short_side": True}, "count of pixels"),
        ({"imagefolder": "x", "size": 3}, "unknown key 'size'"),
        ({"fractals": {"clases": 3}}, "may hold classes"),
        ({"fractals": None}, "may hold classes"),
        ({"fractals": {"classes": 1}}, "from 2 to"),
        ({"fractals": {"classes": 2.5}}, "whole number"),
        ({"fractals": {"seed": -1}}, "from 0 to"),
    ],
)
def test_catalog_entries_of_another_form_are_refused(entry, message):
    with pytest.raises(InputError, match=message):
        lookup("mine", {"mine": entry})


def test_catalog_entries():
    assert lookup("mine", {"mine": {"imagefolder": "x"}}).options == {"path": "x"}
    assert lookup("mine", {"mine": {"imagefolder": "x", "short_side": 99}}).short_side == 99
    assert lookup("ifs", {"ifs": {"fractals": {"classes": 5}}}).options == {"classes": 5}
    with pytest.raises(InputError, match="built in"):
        lookup("pet", {"pet": {"imagefolder": "x"}})


def test_a_table_of_ones_own_adds_and_replaces(tmp_path, monkeypatch):
    (tmp_path / "clipart.zip").write_bytes(b"x")
    rows = table_rows("domainnet_clipart", [tmp_path / "clipart.zip"], "http://here")
    rows += table_rows("domainnet_clipart", [tmp_path / "clipart.zip"], "")
    rows[1]["name"] = "birds_{a|b}"
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(write_table(tmp_path / "t.csv", rows)))
    assert lookup("domainnet_clipart").files[0].url == "http://here/clipart.zip"
    assert lookup("birds_b").format == "class_folders"
    assert lookup("digits").classes == 10


@pytest.mark.parametrize("content", ["name,url\nx,y\n", "", None, "\x00"])
def test_a_table_of_another_form_is_refused(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / "t.csv").write_text(content)
    monkeypatch.setenv(datasets.TABLE_VARIABLE, str(tmp_path / "t.csv"))
    with pytest.raises(InputError, match=r"t\.csv"):
        lookup("digits")


# Splits


@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=120), fraction=st.floats(0.01, 0.99))
def test_held_out_images_are_a_fraction_of_each_class(labels, fraction):
    labels = np.array(labels)
    counts = np.bincount(labels)
    if (counts == 1).any():
        with pytest.raises(ValueError, match="too few"):
            held_out(labels, fraction)
        return
    held = held_out(labels, fraction)
    for label in np.unique(labels):
        count = held[labels == label].sum()
        assert 1 <= count < counts[label]
        assert abs(count - fraction * counts[label]) <= 1
    assert (held == held_out(labels, fraction)).all()


def test_splits_are_frozen():
    held = held_out(np.tile([0, 1], 10), 0.2)
    assert np.flatnonzero(held).tolist() == [4, 6, 9, 15]


def test_what_a_dataset_has_is_not_drawn_again():
    labels = np.repeat(np.arange(3), 100)
    names, counts = np.unique(split_labels(labels), return_counts=True)
    assert dict(zip(names, counts, strict=True)) == {"test": 60, "val": 48, "train": 192}
    assert set(split_labels(labels, ["train", "test"])) == {"train", "val"}
    assert set(split_labels(labels, ["train", "val", "test"])) == {"train"}


# On disk


def write(folder, images, labels, name="x", n_classes=3):
    """Images and labels by split, written one by one."""
    with create(folder, name, source="a test", licence="none") as writer:
        writer.classes = [f"class {n}" for n in range(n_classes)]
        for split in images:
            for image, label in zip(images[split], labels[split], strict=True):
                writer.add(split, image, label)
    return open_dataset(folder)


def some(n=6, seed=0, split="train", size=(4, 5)):
    rng = np.random.default_rng(seed)
    return {split: rng.integers(0, 256, (n, *size, 3), dtype=np.uint8)}, {split: rng.integers(0, 3, n)}


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read(tmp_path_factory, data):
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    images, labels = {}, {}
    for split in data.draw(st.lists(st.sampled_from(datasets.SPLITS), unique=True, min_size=1)):
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        shapes = data.draw(st.lists(sizes, min_size=1, max_size=6))
        images[split] = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
        labels[split] = rng.integers(0, 3, len(shapes))
    dataset = write(tmp_path_factory.mktemp("w") / "x", images, labels)
    assert dataset.classes == ("class 0", "class 1", "class 2")
    assert list(dataset.splits) == [split for split in datasets.SPLITS if split in images]
    for split, expected in images.items():
        found = dataset.split(split)
        assert len(found) == len(found.images) == len(expected)
        assert found.labels.dtype == np.int64 and (found.labels == labels[split]).all()
        for index, image in enumerate(expected):
            assert (found.images[index] == image).all() and found.images[index].dtype == np.uint8
            assert (found.images[index - len(expected)] == image).all()
        assert found.images.shorter_sides().tolist() == [min(image.shape[:2]) for image in expected]
        if len({image.shape for image in expected}) == 1:
            assert (found.images.uniform == np.stack(expected)).all()
        else:
            assert found.images.uniform is None
        with pytest.raises(IndexError):
            found.images[len(expected)]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_train_and_val_drawn_anew_are_the_same_images(tmp_path_factory, data):
    """Of each class as many as before, another draw for another seed, whether images have one size or many."""
    sizes = [(4, 5)] if data.draw(st.booleans()) else [(4, 5), (5, 4), (3, 3)]
    images, labels = {}, {}
    for index, split in enumerate(datasets.SPLITS):
        count = data.draw(st.integers(6, 12))
        labels[split] = np.arange(count) % 3
        images[split] = [np.full((*sizes[i % len(sizes)], 3), 20 * index + i, np.uint8) for i in range(count)]
    dataset = write(tmp_path_factory.mktemp("w") / "x", images, labels)
    drawn = [redrawn(dataset, seed) for seed in (0, 0, 1, 2, 3)]

    def content(one, split):
        part = one.split(split)
        return [(part.images[i].shape, part.images[i].max().item(), label) for i, label in enumerate(part.labels)]

    before = [content(dataset, split) for split in datasets.SPLITS]
    for one in drawn:
        train, val, test = (content(one, split) for split in datasets.SPLITS)
        assert test == before[2] and sorted(train + val) == sorted(before[0] + before[1])
        assert sorted(label for *_, label in val) == sorted(labels["val"])
        assert (one.split("train").images.uniform is None) is (len(sizes) > 1)
    assert content(drawn[0], "val") == content(drawn[1], "val")
    assert len({str(content(one, "val")) for one in drawn}) > 1


def test_reading_maps_the_files_into_memory(tmp_path):
    images = write(tmp_path / "x", *some()).split("train").images
    assert isinstance(images.uniform, np.memmap)
    assert isinstance(images[0], np.memmap)


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    images, labels = some()
    first = write(tmp_path / "a", images, labels)
    assert first.fingerprint == write(tmp_path / "b", images, labels, name="y").fingerprint
    files = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.name != "dataset.json"}
    assert files == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir() if p.name != "dataset.json"}
    images["train"][3, 1, 1, 1] ^= 1
    assert first.fingerprint != write(tmp_path / "c", images, labels).fingerprint
    images["train"][3, 1, 1, 1] ^= 1
    labels["train"][0] = (labels["train"][0] + 1) % 3
    assert first.fingerprint != write(tmp_path / "d", images, labels).fingerprint
    labels["train"][0] = (labels["train"][0] - 1) % 3
    turned = {"train": images["train"].reshape(6, 5, 4, 3)}
    assert first.fingerprint != write(tmp_path / "e", turned, labels).fingerprint


def test_a_split_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="has no val split; it has train"):
        write(tmp_path / "x", *some()).split("val")


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_a_defect(tmp_path, label):
    images, labels = some()
    labels["train"][0] = label
    with pytest.raises(ValueError, match="3 classes"):
        write(tmp_path / "x", images, labels)


def cut_short(folder):
    path = folder / "train.pixels"
    path.write_bytes(path.read_bytes()[:-1])


def another_format(folder):
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(about | {"format": 1}))


def fewer_labels(folder):
    np.save(folder / "train.labels.npy", np.load(folder / "train.labels.npy")[1:])


def a_pickle(folder):
    np.save(folder / "train.labels.npy", np.array([{}] * 6, dtype=object), allow_pickle=True)


def longer(folder):
    with (folder / "train.pixels").open("ab") as file:
        file.write(b"x")


def other_shapes(folder):
    np.save(folder / "train.shapes.npy", np.array([[2, 2], [3, 3]], np.int32))


def test_identical_images_across_splits_are_counted(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), dtype=np.uint8)
    with create(tmp_path / "x", "twins", source="", licence="") as writer:
        writer.classes = ["a", "b"]
        writer.extend("train", images[:6], [0] * 6)
        writer.extend("val", images[4:8], [0] * 4)  # two of train
        writer.extend("test", images[[0, 1, 1, 7, 9]], [1] * 5)  # three of train, one of val
        writer.add("test", images[2].reshape(6, 4, 3), 0)  # the same bytes, another image
        black = np.zeros((4, 6, 3), np.uint8)
        for split, image in (("train", black), ("test", black + 0), ("val", black + 1)):
            writer.add(split, image, 0)
    record = json.loads((tmp_path / "x" / "dataset.json").read_text())
    assert record["identical"] == {"val in train": 2, "test in train": 4, "test in val": 1}
    assert "note: dataset twins: images of one split that are in another one too" in capsys.readouterr().err


def test_images_that_differ_are_no_copies(tmp_path):
    write(tmp_path / "x", *some())
    assert "identical" not in json.loads((tmp_path / "x" / "dataset.json").read_text())


@pytest.mark.parametrize(
    "harm",
    [
        cut_short,
        another_format,
        fewer_labels,
        longer,
        other_shapes,
        a_pickle,
        lambda folder: (folder / "dataset.json").unlink(),
        lambda folder: (folder / "dataset.json").write_text("{"),
        lambda folder: (folder / "dataset.json").write_text("{}"),
        lambda folder: (folder / "train.labels.npy").unlink(),
        lambda folder: (folder / "train.pixels").write_bytes(b""),
    ],
)
def test_a_damaged_dataset_is_refused(tmp_path, harm):
    write(tmp_path / "x", *some())
    harm(tmp_path / "x")
    with pytest.raises(InputError, match="fetch"):
        open_dataset(tmp_path / "x")


def test_a_failure_leaves_nothing_or_what_was_there(tmp_path):
    images, labels = some()
    with pytest.raises(ZeroDivisionError), create(tmp_path / "x", "x", source="", licence="") as writer:
        writer.add("train", images["train"][0], 0)
        raise ZeroDivisionError
    assert {path.name for path in tmp_path.iterdir()} == set()
    first = write(tmp_path / "x", images, labels)
    with pytest.raises(ZeroDivisionError), create(tmp_path / "x", "x", source="", licence=""):
        raise ZeroDivisionError
    assert open_dataset(tmp_path / "x").fingerprint == first.fingerprint
    assert write(tmp_path / "x", *some(seed=1)).fingerprint != first.fingerprint


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".x~dead" / "scratch").mkdir(parents=True)
    write(tmp_path / "x", *some())
    assert {path.name for path in tmp_path.iterdir()} == {"x"}


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_anything_else_in_the_place_is_left_alone(tmp_path, what):
    place = tmp_path / "x"
    if what == "file":
        place.write_text("mine")
    elif what == "folder":
        place.mkdir()
        (place / "mine.txt").write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="remove it, or name another folder"):
        write(place, *some())
    assert os.path.lexists(place)


def test_an_empty_folder_is_taken_over(tmp_path):
    (tmp_path / "x").mkdir()
    assert len(write(tmp_path / "x", *some()).split("train")) == 6


def test_two_at_once_make_it_once(tmp_path):
    started, go, made = threading.Event(), threading.Event(), []

    def first():
        with create(tmp_path / "x", "x", source="", licence="") as writer:
            writer.classes = ["a", "b", "c"]
            writer.extend("train", some()[0]["train"], some()[1]["train"])
            started.set()
            go.wait(5)
            made.append(1)

    def second():
        started.wait(5)
        threading.Timer(0.05, go.set).start()
        with create(tmp_path / "x", "x", source="", licence="") as writer:
            made.append(writer)

    threads = [threading.Thread(target=f) for f in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1, None]
    assert len(open_dataset(tmp_path / "x").split("train")) == 6


def test_the_shipped_table_is_sorted_into_columns():
    with Path(datasets.TABLE).open(newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {len(rows[0])}
