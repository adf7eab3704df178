"""What the images themselves allow to be said: how many there are per class, imbalance, duplicates."""

import hashlib

import numpy as np

FEW_PER_CLASS = 10
"""Fewer training images of a class than this are called few."""
FEW_TO_VALIDATE = 100
"""With fewer validation images, one image more or less is a percent or more of the accuracy."""
IMBALANCE = 5
"""From this ratio of the largest to the smallest class on, the classes are called imbalanced."""


def describe(dataset):
    """The sizes of a dataset: a dict of name, classes, images per split, images per class of the training split."""
    labels = np.asarray(dataset.split("train").labels)
    counts = np.bincount(labels, minlength=len(dataset.classes))
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "train_per_class": dict(zip(dataset.classes, counts.tolist(), strict=True)),
    }


def warnings(dataset):
    """Sentences on what makes an answer for this dataset less sure; none where nothing stands out."""
    counts = describe(dataset)["train_per_class"]
    least, most = min(counts, key=counts.get), max(counts, key=counts.get)
    found = []
    if counts[least] < FEW_PER_CLASS:
        few = sum(n < FEW_PER_CLASS for n in counts.values())
        found.append(
            f"{few} of {len(counts)} classes have fewer than {FEW_PER_CLASS} training images (fewest: {least}, "
            f"{counts[least]}): fine-tuning can do little for them; collect more images first."
        )
    n_val = len(dataset.splits.get("val", ()))
    if n_val < FEW_TO_VALIDATE:
        found.append(
            f"only {n_val} validation images: one image is {100 / max(n_val, 1):.1f} % of the accuracy, and components "
            "that differ by less cannot be told apart."
        )
    if counts[most] >= IMBALANCE * max(counts[least], 1):
        found.append(
            f"the classes are imbalanced: {most} has {counts[most]} training images, {least} has {counts[least]}; "
            f"always answering {most} would be right for {100 * counts[most] / sum(counts.values()):.1f} %."
        )
    return found + _duplicates(dataset)


def _duplicates(dataset):
    """Sentences on images that occur more than once, equal in every pixel."""
    first, repeated, leaked = {}, 0, 0
    for name, split in dataset.splits.items():
        for image in split.images:
            digest = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()
            repeated += digest in first
            leaked += first.setdefault(digest, name) != name
    if not repeated:
        return []
    leak = f"; {leaked} of them are in another split than the first, which makes accuracies too high" if leaked else ""
    what = f"{repeated} images are duplicates of others" if repeated > 1 else "1 image is a duplicate of another"
    return [f"{what}, equal in every pixel{leak}."]
