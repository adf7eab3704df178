"""CIFAR-10 and CIFAR-100: pickled batches, read only after their published checksum, and no classes but NumPy's."""

import pickle

import numpy as np

from vit_plasticity.data.extraction import extract
from vit_plasticity.data.formats import dataset_format
from vit_plasticity.data.splits import split_labels, write_split
from vit_plasticity.runtime.cli import InputError

_SIDE = 32
_ALLOWED = {("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


@dataset_format
def cifar10(entry, writer, source):
    """Five batches for training and one to test, of 10 classes."""
    train = [f"data_batch_{number}" for number in range(1, 6)]
    _prepare(entry, writer, source, "cifar-10-batches-py", train, "test_batch", "batches.meta", "label_names", "labels")


@dataset_format
def cifar100(entry, writer, source):
    """One batch for training and one to test, of 100 classes, the fine ones."""
    names = ["train"], "test", "meta", "fine_label_names", "fine_labels"
    _prepare(entry, writer, source, "cifar-100-python", *names)


def _prepare(entry, writer, source, folder, train, test, meta, class_names, labels):
    (file,) = entry.files
    if not file.checksum:
        raise InputError(f"{entry.name}: pickled batches are only read from an archive whose checksum is in the table")
    extract(source.get(file), writer.scratch)
    folder = writer.scratch / folder
    writer.classes = list(_unpickled(folder / meta)[class_names])
    for names, given in ((train, True), ([test], False)):
        batches = [_unpickled(folder / name) for name in names]
        own = np.concatenate([np.asarray(batch[labels], np.int64) for batch in batches])
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        write_split(writer, pixels, own, split_labels(own, ["train", "test"]) if given else np.full(len(own), "test"))


def _unpickled(path):
    with path.open("rb") as file:
        return _Arrays(file, encoding="latin1").load()


class _Arrays(pickle.Unpickler):
    """Makes arrays, numbers, texts, lists and maps, and nothing else."""

    def find_class(self, module, name):
        if (module.removeprefix("numpy.core.").removeprefix("numpy._core."), name) not in _ALLOWED:
            raise InputError(f"a batch of CIFAR asks for {module}.{name}, which is no array; it is not read")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)
