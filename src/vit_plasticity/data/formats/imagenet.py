"""ImageNet's validation images."""

import numpy as np

from vit_plasticity.data.decoding import write_images
from vit_plasticity.data.extraction import extract
from vit_plasticity.data.folders import list_folder
from vit_plasticity.data.formats import dataset_format
from vit_plasticity.runtime.cli import InputError


@dataset_format
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
