"""scikit-learn's handwritten digits, and corrupted ones."""

import numpy as np

from vit_plasticity.data import corruptions
from vit_plasticity.data.formats import dataset_format
from vit_plasticity.data.splits import split_labels, write_split

_DIGIT_SIZE = 32  # pixels


@dataset_format
def digits(entry, writer, source):
    """scikit-learn's 1797 handwritten digits, 8 x 8 pixels of 17 grey levels, enlarged bicubically to 32 x 32."""
    _write_digits(writer, *_digits())


@dataset_format
def digits_c(entry, writer, source):
    """The same digits in the same splits, corrupted."""
    images, labels = _digits()
    corruption, severity = entry.variant
    _write_digits(writer, corruptions.corrupt(images, corruption, int(severity)), labels)


def _digits():
    """The enlarged images, uint8 (1797, 32, 32, 3), and their labels (1797,)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    small = np.round(data.images * (255 / 16)).astype(np.uint8)
    size = (_DIGIT_SIZE, _DIGIT_SIZE)
    grey = np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in small])
    return np.repeat(grey[..., None], 3, axis=-1), data.target


def _write_digits(writer, images, labels):
    writer.classes = [str(digit) for digit in range(10)]
    write_split(writer, images, labels, split_labels(labels))
