"""Preparing the datasets that need no download: digits, corrupted digits, fractals."""

import numpy as np

from vit_plasticity.data import corruptions, fractals
from vit_plasticity.data.splits import split_labels, write_split

_DIGIT_SIZE = 32  # pixels


def digits(entry, writer, source):
    """scikit-learn's 1797 handwritten digits, 8 x 8 pixels of 17 grey levels, enlarged bicubically to 32 x 32."""
    _write_digits(writer, *_digits())


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


def fractal_classes(entry, writer, source):
    """Images of random iterated function systems, one system per class, each class split like any other dataset."""
    params = fractals.FractalParams(**entry.options)
    writer.classes = [f"ifs{index:05d}" for index in range(params.classes)]
    labels = np.zeros(params.images_per_class, int)
    for index in range(params.classes):
        write_split(writer, fractals.draw_class(params, index), labels + index, split_labels(labels))
