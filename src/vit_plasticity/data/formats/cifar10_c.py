"""CIFAR-10-C: one array per corruption."""

import io
import tarfile

import numpy as np

from vit_plasticity.data.formats import dataset_format
from vit_plasticity.data.splits import split_labels, write_split
from vit_plasticity.runtime.cli import InputError

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_SEVERITIES = 5


@dataset_format
def cifar10_c(entry, writer, source):
    """One corruption and severity of CIFAR-10-C: 10,000 images, the corrupted test images of CIFAR-10, split 80/20.

    The archive has one array per corruption, of the five severities one after the other, each in the same order.
    """
    corruption, severity = entry.variant[0], int(entry.variant[1])
    (file,) = entry.files
    with tarfile.open(source.get(file), "r:") as tar:
        labels = _array(tar, "labels", 1).astype(np.int64)
        images = _array(tar, corruption, 4)
    if len(labels) != len(images) or len(labels) % _SEVERITIES:
        raise InputError(f"{file.name}: {len(images)} images and {len(labels)} labels of {_SEVERITIES} severities")
    one = slice((severity - 1) * len(labels) // _SEVERITIES, severity * len(labels) // _SEVERITIES)
    writer.classes = CIFAR10_CLASSES
    write_split(writer, images[one], labels[one], split_labels(labels[one]))


def _array(tar, name, dimensions):
    """The array CIFAR-10-C/<name>.npy of an open tar file."""
    try:
        data = tar.extractfile(f"CIFAR-10-C/{name}.npy").read()
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (KeyError, ValueError, AttributeError, tarfile.TarError) as error:
        raise InputError(f"{tar.name}: no array CIFAR-10-C/{name}.npy can be read from it ({error})") from error
    if array.dtype != np.uint8 or array.ndim != dimensions:
        raise InputError(f"{tar.name}: {name} has {array.dtype} values in {array.ndim} dimensions")
    return array
