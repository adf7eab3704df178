"""Oxford Flowers 102."""

import numpy as np

from vit_plasticity.data.decoding import write_images
from vit_plasticity.data.extraction import extract
from vit_plasticity.data.formats import dataset_format

_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}


@dataset_format
def flowers102(entry, writer, source):
    """A folder of photographs, labels and the three official splits in MATLAB files, both counted from 1."""
    from scipy.io import loadmat
    from torchvision.datasets import Flowers102  # the names of the flowers are in none of the files

    images, labels, splits = (source.get(file) for file in entry.files)
    extract(images, writer.scratch)
    of_image, numbers = loadmat(labels)["labels"].ravel().astype(np.int64) - 1, loadmat(splits)
    parts = {split: numbers[key].ravel().astype(np.int64) for split, key in _SPLITS.items()}
    writer.classes = list(Flowers102.classes)
    shown = np.concatenate([*parts.values()])
    paths = [writer.scratch / "jpg" / f"image_{number:05d}.jpg" for number in shown]
    names = np.repeat([*parts], [len(part) for part in parts.values()])
    write_images(writer, paths, of_image[shown - 1], names, entry.short_side)
