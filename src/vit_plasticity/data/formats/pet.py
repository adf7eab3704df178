"""Oxford-IIIT Pet."""

import numpy as np

from vit_plasticity.data.decoding import write_images
from vit_plasticity.data.extraction import extract
from vit_plasticity.data.formats import dataset_format
from vit_plasticity.data.splits import split_labels


@dataset_format
def pet(entry, writer, source):
    """Photographs of 37 breeds; val is drawn from the official trainval list.

    A line of a list is "Breed_name_12 label species number"; labels count from 1.
    """
    for file in entry.files:
        extract(source.get(file), writer.scratch)
    names, labels, classes = {}, {}, {}
    for split in ("trainval", "test"):
        text = (writer.scratch / "annotations" / f"{split}.txt").read_text(encoding="utf-8")
        rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        names[split] = [row[0] for row in rows]
        labels[split] = np.array([int(row[1]) - 1 for row in rows])
        classes |= {int(row[1]): row[0].rpartition("_")[0].replace("_", " ").title() for row in rows}
    writer.classes = [classes[label] for label in sorted(classes)]
    splits = [split_labels(labels["trainval"], ["train", "test"]), np.full(len(labels["test"]), "test", "<U5")]
    paths = [writer.scratch / "images" / f"{name}.jpg" for split in names.values() for name in split]
    write_images(writer, paths, np.concatenate([*labels.values()]), np.concatenate(splits), entry.short_side)
