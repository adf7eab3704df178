"""Fractals, drawn here."""

import numpy as np

from vit_plasticity.data.formats import dataset_format
from vit_plasticity.data.fractals import FractalParams, draw_class
from vit_plasticity.data.splits import split_labels, write_split


@dataset_format
def fractals(entry, writer, source):
    """Images of random iterated function systems, one system per class, each class split like any other dataset."""
    params = FractalParams(**entry.options)
    writer.classes = [f"ifs{index:05d}" for index in range(params.classes)]
    labels = np.zeros(params.images_per_class, int)
    for index in range(params.classes):
        write_split(writer, draw_class(params, index), labels + index, split_labels(labels))
