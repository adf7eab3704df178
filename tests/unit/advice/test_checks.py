"""What is said of the images: few, imbalanced, duplicated, or nothing."""

import numpy as np
import pytest

from vit_plasticity.advice import checks
from vit_plasticity.data.registry import open_dataset
from vit_plasticity.data.store import create


def dataset(folder, per_class, val=60, duplicates=(), classes="ab"):
    """A prepared dataset with so many training images per class; duplicates: pairs of (split, split)."""
    random = np.random.default_rng(0)
    with create(folder, "d", source="here", licence="none") as writer:
        writer.classes = list(classes)
        for split, sizes in {"train": per_class, "val": [val] * len(classes), "test": [5] * len(classes)}.items():
            for label, n in enumerate(sizes):
                writer.extend(split, random.integers(256, size=(n, 4, 4, 3), dtype=np.uint8), [label] * n)
        for one, other in duplicates:
            image = random.integers(256, size=(4, 4, 3), dtype=np.uint8)
            writer.add(one, image, 0)
            writer.add(other, image, 0)
    return open_dataset(folder)


def test_nothing_is_said_of_images_that_are_many_balanced_and_different(tmp_path):
    assert checks.warnings(dataset(tmp_path / "d", [20, 20])) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"per_class": [20, 9]}, "1 of 2 classes have fewer than 10 training images (fewest: b, 9)"),
        ({"per_class": [20, 20], "val": 10}, "only 20 validation images: one image is 5.0 % of the accuracy"),
        ({"per_class": [60, 12]}, "a has 60 training images, b has 12; always answering a would be right for 83.3 %"),
    ],
)
def test_each_weakness_is_one_sentence(arguments, said, tmp_path):
    (sentence,) = checks.warnings(dataset(tmp_path / "d", **arguments))
    assert said in sentence


def test_duplicates_within_and_across_splits_are_counted(tmp_path):
    (sentence,) = checks.warnings(dataset(tmp_path / "d", [20, 20], duplicates=[("train", "train")]))
    assert sentence == "1 image is a duplicate of another, equal in every pixel."
    pairs = [("train", "train"), ("train", "test"), ("val", "train")]
    (sentence,) = checks.warnings(dataset(tmp_path / "e", [20, 20], duplicates=pairs))
    assert sentence.startswith("3 images are duplicates") and "2 of them are in another split" in sentence


def test_a_description_counts_images_per_split_and_class(tmp_path):
    about = checks.describe(dataset(tmp_path / "d", [20, 21]))
    assert about["images"] == {"train": 41, "val": 120, "test": 10}
    assert about["train_per_class"] == {"a": 20, "b": 21}
