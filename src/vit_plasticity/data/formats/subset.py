"""A few images per class of another dataset, for what is learnt from few."""

import numpy as np

from vit_plasticity.data import registry
from vit_plasticity.data.formats import dataset_format, fetch_dataset
from vit_plasticity.data.splits import VAL_FRACTION, draw, held_out
from vit_plasticity.runtime.cli import InputError


@dataset_format
def subset(entry, writer, source):
    """`per_class` images of each class, drawn by `seed` from train and val of the dataset `of`; a fifth of them is the
    new val, and the test split is the same.

    The other dataset is the one beside this, which is made if it is built in. Raises InputError for a class with fewer
    images.
    """
    name, per_class, seed = (entry.options[key] for key in ("of", "per_class", "seed"))
    folder = writer.beside(name)
    if not folder.exists() and name in registry.registry():
        fetch_dataset(registry.lookup(name), folder, source)
    whole = registry.open_dataset(folder)
    pool = [(whole.split(split), i) for split in ("train", "val") for i in range(len(whole.split(split)))]
    labels = np.concatenate([whole.split(split).labels for split in ("train", "val")])
    counts = np.bincount(labels, minlength=len(whole.classes))
    if small := [f"{whole.classes[label]} ({n})" for label, n in enumerate(counts) if n < per_class]:
        raise InputError(
            f"dataset {entry.name}: too few images in train and val of {name} of class {', '.join(small[:5])}; "
            f"per_class must be at most {counts.min()}, got {per_class}"
        )
    writer.classes = list(whole.classes)
    chosen = draw(labels, lambda label, n: per_class, seed)
    for index, held in zip(chosen, held_out(labels[chosen], VAL_FRACTION, seed), strict=True):
        split, position = pool[index]
        writer.add("val" if held else "train", split.images[position], labels[index])
    test = whole.split("test")
    for position, label in enumerate(test.labels):
        writer.add("test", test.images[position], label)
