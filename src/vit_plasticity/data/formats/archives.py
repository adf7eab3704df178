"""Preparing the datasets that are downloaded, from their original archives.

`source.get(file)` returns the path of a downloaded file whose checksum was verified; `writer.scratch` is a folder for
what is unpacked, which goes when the dataset is written. torchvision, which imports torch, is imported only where it
parses.
"""

import io
import tarfile

import numpy as np

from vit_plasticity.data.extraction import extract
from vit_plasticity.data.folders import list_folder
from vit_plasticity.data.formats.imagefolder import write_folder, write_images
from vit_plasticity.data.splits import split_labels, write_split
from vit_plasticity.runtime.cli import InputError

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_SEVERITIES = 5


def cifar(entry, writer, source):
    """CIFAR-10 and CIFAR-100: pickled batches, read by torchvision, and only after their published checksum."""
    from torchvision.datasets import CIFAR10, CIFAR100

    (file,) = entry.files
    if not file.checksum:
        raise InputError(f"{entry.name}: pickled batches are only read from an archive whose checksum is in the table")
    base = {"cifar10": CIFAR10, "cifar100": CIFAR100}[entry.format]

    class Verified(base):
        """Leaves out torchvision's checksums of the single batches: that of the whole archive has been verified."""

        meta = base.meta | {"md5": None}

        def _check_integrity(self):
            return True

    extract(source.get(file), writer.scratch)
    train, test = Verified(writer.scratch, train=True), Verified(writer.scratch, train=False)
    writer.classes = train.classes
    write_split(writer, train.data, np.array(train.targets), split_labels(train.targets, ["train", "test"]))
    write_split(writer, test.data, np.array(test.targets), np.full(len(test.targets), "test"))


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


def flowers102(entry, writer, source):
    """Oxford Flowers 102: a folder of photographs, labels and the three official splits in MATLAB files."""
    from torchvision.datasets import Flowers102

    class Verified(Flowers102):
        """Leaves out torchvision's checksums: ours have been verified."""

        _file_dict = {key: (name, None) for key, (name, _) in Flowers102._file_dict.items()}  # noqa: RUF012

    images, *tables = (source.get(file) for file in entry.files)
    folder = writer.scratch / "flowers-102"
    extract(images, folder)
    for table in tables:
        (folder / table.name).write_bytes(table.read_bytes())
    parts = {split: Verified(writer.scratch, split) for split in ("train", "val", "test")}
    writer.classes = parts["train"].classes
    paths = [path for part in parts.values() for path in part._image_files]
    labels = np.concatenate([part._labels for part in parts.values()])
    splits = np.repeat(list(parts), [len(part) for part in parts.values()])
    write_images(writer, paths, labels, splits, entry.short_side)


def pet(entry, writer, source):
    """Oxford-IIIT Pet: photographs of 37 breeds; val is drawn from the official trainval list."""
    from torchvision.datasets import OxfordIIITPet

    for file in entry.files:
        extract(source.get(file), writer.scratch / "oxford-iiit-pet")
    trainval, test = (OxfordIIITPet(writer.scratch, split) for split in ("trainval", "test"))
    writer.classes = trainval.classes
    labels = np.concatenate([trainval._labels, test._labels])
    splits = np.concatenate([split_labels(trainval._labels, ["train", "test"]), np.full(len(test), "test", "<U5")])
    write_images(writer, [*trainval._images, *test._images], labels, splits, entry.short_side)


def class_folders(entry, writer, source):
    """Archives of class folders, below one common folder or not, such as the domains of DomainNet."""
    for file in entry.files:
        extract(source.get(file), writer.scratch)
    root = writer.scratch
    while len(inside := [path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX"))]) == 1:
        (root,) = inside
    write_folder(root, writer, entry)


def imagenet(entry, writer, source):
    """The 50,000 validation images of ImageNet (ILSVRC 2012) as one split, ``test``: the pre-training sample.

    They come from a folder of class folders (by WordNet id) ``imagenet`` in the downloads folder, if it is there, or
    else from the two archives that the table names, which only their owner can give out.
    """
    folder = source.folder / entry.name
    if folder.is_dir():
        listing = list_folder(folder, split=False)
        writer.classes, paths, labels = listing.classes, listing.paths, listing.labels
    else:
        archive, devkit = (source.get(file) for file in entry.files)
        extract(archive, writer.scratch / "images")
        extract(devkit, writer.scratch / "devkit")
        paths = sorted((writer.scratch / "images").glob("*.JPEG"))
        labels, writer.classes = _imagenet_labels(writer.scratch / "devkit", len(paths))
    write_images(writer, paths, labels, np.full(len(paths), "test"), entry.short_side)


def _imagenet_labels(devkit, n_images):
    """Labels (n_images,) of the validation images in the order of their names, as indices of the sorted WordNet ids."""
    from scipy.io import loadmat

    (data,) = devkit.glob("*/data")
    synsets = np.atleast_1d(loadmat(data / "meta.mat", squeeze_me=True)["synsets"])
    wordnet = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["num_children"]) == 0}
    truth = [
        int(line) for line in (data / "ILSVRC2012_validation_ground_truth.txt").read_text(encoding="utf-8").split()
    ]
    if len(truth) != n_images:
        raise InputError(f"imagenet: {n_images} validation images, but the devkit names {len(truth)}")
    classes = sorted(wordnet.values())
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index[wordnet[one]] for one in truth]), classes
