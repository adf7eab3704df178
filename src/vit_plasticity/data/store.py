"""Writing a prepared dataset, image by image, so that one far larger than memory can be made.

A folder with ``dataset.json`` (format, name, classes, splits, source, licence, fingerprint, and what was noted while it
was made) and per split s: ``s.pixels``, the bytes of its images one after the other, and the arrays ``s.labels.npy``
int64 (n,) and ``s.shapes.npy`` int32 (n, 2), their heights and widths, in one row when all have the same.
The fingerprint is the SHA-256 over the lines "<split>.<array> <sha256 of its data>" of the labels, pixels and shapes
(a row per image) of all splits, sorted.
"""

import hashlib
import json
import shutil
import sys
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path

import numpy as np

from vit_plasticity.data.registry import FORMAT, SPLITS
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.folders import new_folder


@contextmanager
def create(folder, name, *, source, licence, threads=None):
    """A Writer for a new dataset, which appears at `folder` as a whole when the block ends well, else not at all.

    Yields None if another process made the dataset while this one waited for it. See `folders.new_folder`.
    """
    with new_folder(folder, "dataset.json") as temporary:
        if temporary is None:
            yield None
            return
        writer = Writer(temporary, name, Path(folder), threads)
        try:
            yield writer
            writer.finish(source, licence)
        finally:
            writer.close()


class Writer:
    """Adds images to the splits of a dataset that is being written into `folder`.

    classes: the class names, to be set by who adds images. scratch: a folder for what is unpacked on the way.
    threads: how many may decode images for it, one for each CPU core by default.
    """

    def __init__(self, folder, name, output, threads=None):
        self._folder, self._name, self._output = folder, name, output
        self.threads = threads or cli.available_cpus()
        self._splits, self._notes = {}, {}
        self.classes = []
        self.scratch = folder / "scratch"
        self.scratch.mkdir()

    def add(self, split, image, label):
        """Append one image, uint8 (H, W, 3), with the index of its class."""
        self.extend(split, image[None], [label])

    def extend(self, split, images, labels):
        """Append n images of one size, uint8 (n, H, W, 3), with the indices of their classes, (n,)."""
        if split not in self._splits:
            self._splits[split] = _SplitWriter(self._folder, split)
        self._splits[split].extend(images, labels)

    def beside(self, name):
        """The folder of another dataset in the folder where this one will be."""
        return self._output.with_name(name)

    def note(self, key, value, text):
        """Keep `value` (for JSON) under `key` in the dataset's record, and say it on stderr in a line that begins with
        ``note:``, which the workflow repeats where its user sees it."""
        self._notes[key] = value
        said = ", ".join(f"{kind}: {n}" for kind, n in value.items()) if isinstance(value, dict) else value
        line = f"note: dataset {self._name}: {text}: {said}".replace("\n", " ")
        print(line, file=sys.stderr, flush=True)

    def sizes(self):
        """How many images each split has so far, in the order train, val, test."""
        return {split: len(self._splits[split].labels) for split in SPLITS if split in self._splits}

    def finish(self, source, licence):
        """Write what is known only now: labels, shapes, and ``dataset.json``."""
        shutil.rmtree(self.scratch)
        self._note_identical()
        digests, sizes = {}, self.sizes()
        for split in sizes:
            digests |= self._splits[split].finish(len(self.classes))
        lines = "".join(f"{array} {digests[array]}\n" for array in sorted(digests))
        about = {
            "format": FORMAT,
            "name": self._name,
            "classes": list(self.classes),
            "splits": sizes,
            "source": source,
            "licence": licence,
            "fingerprint": hashlib.sha256(lines.encode()).hexdigest(),
        } | self._notes
        (self._folder / "dataset.json").write_text(
            json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    def _note_identical(self):
        """Note how many images of a split are also in another one."""
        images = {split: self._splits[split].digests() for split in self.sizes()}
        identical = {
            f"{second} in {first}": int(np.isin(images[second], images[first]).sum())
            for first, second in combinations(images, 2)
        }
        if identical := {pair: n for pair, n in identical.items() if n}:
            self.note("identical", identical, "images of one split that are in another one too, pixel by pixel")

    def close(self):
        """Close the files, whatever became of them."""
        for split in self._splits.values():
            with suppress(OSError):  # the disk may be full, and then what is left in the buffer cannot go anywhere
                split.file.close()


class _SplitWriter:
    def __init__(self, folder, name):
        self._folder, self._name = folder, name
        self.labels, self._shapes = [], []
        self._digest, self._digests = hashlib.sha256(), bytearray()
        self.file = (folder / f"{name}.pixels").open("wb")

    def extend(self, images, labels):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(labels):
            raise ValueError(
                f"expected uint8 images (n, H, W, 3) and n labels, got {images.dtype} {images.shape}, {len(labels)}"
            )
        images = np.ascontiguousarray(images)
        self.file.write(images.data)
        self._digest.update(images.data)
        for image in images:
            shape = np.int32(image.shape[:2]).tobytes()
            self._digests += hashlib.blake2b(image.data, digest_size=8, salt=shape).digest()
        self.labels.extend(int(label) for label in labels)
        self._shapes.extend([images.shape[1:3]] * len(images))

    def digests(self):
        """Numbers (n,) that are equal for images of equal pixels."""
        return np.frombuffer(self._digests, np.uint64)

    def finish(self, n_classes):
        """Write the arrays; their names with the SHA-256 of each."""
        self.file.close()
        labels, shapes = np.array(self.labels, np.int64), np.array(self._shapes, np.int32)
        if not 0 <= labels.min() <= labels.max() < n_classes:
            raise ValueError(f"{self._name}: labels from {labels.min()} to {labels.max()} with {n_classes} classes")
        np.save(self._folder / f"{self._name}.labels.npy", labels, allow_pickle=False)
        one_size = (shapes == shapes[0]).all()
        np.save(self._folder / f"{self._name}.shapes.npy", shapes[:1] if one_size else shapes, allow_pickle=False)
        return {
            f"{self._name}.pixels": self._digest.hexdigest(),
            f"{self._name}.labels": hashlib.sha256(labels.data).hexdigest(),
            f"{self._name}.shapes": hashlib.sha256(shapes.data).hexdigest(),
        }
