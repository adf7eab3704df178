"""Fixed splits: which images of a dataset are held out, by a rule that every machine and version computes alike."""

from dataclasses import replace

import numpy as np

from vit_plasticity.data.registry import Split

TEST_FRACTION = VAL_FRACTION = 0.2


def split_labels(labels, given=("train",)):
    """Assign the images of a train split to splits: (n,) names, "train", "val" or "test".

    labels: (n,) class indices; given: the splits that the dataset has. The test images, 20 % of each class, are drawn
    first, then 20 % of what is left for val; a split that the dataset has already is not drawn again.
    Raises ValueError if a class is too small to have an image in each split.
    """
    labels = np.asarray(labels)
    names = np.full(len(labels), "train", dtype="<U5")
    for split, fraction in (("test", TEST_FRACTION), ("val", VAL_FRACTION)):
        if split not in given:
            rest = np.flatnonzero(names == "train")
            names[rest[held_out(labels[rest], fraction)]] = split
    return names


def write_split(writer, images, labels, splits):
    """Write images (n, H, W, 3) with labels (n,) to the splits that they are assigned to, (n,) names."""
    for split in np.unique(splits):
        writer.extend(split, images[splits == split], np.asarray(labels)[splits == split])


def redrawn(dataset, seed):
    """A `registry.Dataset` whose train and val are drawn anew out of their union, of each class as many as before.

    seed: what draws them. The test split, the pixels on disk and the fingerprint stay.
    """
    train, val = dataset.split("train"), dataset.split("val")
    labels, counts = np.concatenate([train.labels, val.labels]), np.bincount(val.labels, minlength=len(dataset.classes))
    chosen = np.zeros(len(labels), bool)
    chosen[draw(labels, lambda label, _: counts[label], seed)] = True
    new = {
        name: Split(Chosen((train.images, val.images), np.flatnonzero(held)), labels[held])
        for name, held in (("train", ~chosen), ("val", chosen))
    }
    return replace(dataset, splits=dataset.splits | new)


class Chosen:
    """Some images out of several sequences of them, in a given order; see `registry.Images`.

    index: (n,) positions in the sequences `parts`, laid one after the other.
    """

    def __init__(self, parts, index):
        self._parts, self._index = parts, index
        self._ends = np.cumsum([len(part) for part in parts])
        one_size = len({part.uniform.shape[1:] for part in parts if part.uniform is not None}) == 1
        whole = one_size and all(part.uniform is not None for part in parts)
        self.uniform = np.concatenate([part.uniform for part in parts])[index] if whole else None

    def __len__(self):
        return len(self._index)

    def __getitem__(self, index):
        if self.uniform is not None:
            return self.uniform[index]
        position = self._index[index]
        part = int(np.searchsorted(self._ends, position, side="right"))
        return self._parts[part][position - (self._ends[part - 1] if part else 0)]


def held_out(labels, fraction, seed=0):
    """Which images to hold out, (n,) bool: of each class the given fraction, rounded, at least one and never all.

    labels: (n,) class indices. The draw depends on nothing but the labels' order, the fraction and the seed: it sorts
    the raw output of PCG64, which NumPy keeps stable (unlike that of `Generator.permutation`).
    Raises ValueError for a class of one image.
    """
    labels = np.asarray(labels)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < 2:
            raise ValueError(f"class {label} has {count} image, too few to be split")
    chosen = np.zeros(len(labels), bool)
    chosen[draw(labels, lambda _, n: min(max(1, round(fraction * n)), n - 1), seed)] = True
    return chosen


def draw(labels, count, seed):
    """Indices, sorted, of `count(label, n)` images of each class of n, drawn as `held_out` draws."""
    drawn = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = np.argsort(np.random.PCG64([seed, int(label)]).random_raw(len(members)), kind="stable")
        drawn.append(members[order[: count(label, len(members))]])
    return np.sort(np.concatenate(drawn))
