"""Writing a prepared dataset, image by image, so that one far larger than memory can be made.

A folder with ``dataset.json`` (format, name, classes, splits, source, licence, fingerprint) and per split s:
``s.labels.npy`` int64 (n,) and ``s.pixels.npy`` uint8, which is (n, H, W, 3) when all images have one size; otherwise
it is (total,), the images one after the other, and ``s.shapes.npy`` int32 (n, 2) holds their heights and widths.
The fingerprint is the SHA-256 over the lines "<split>.<array> <sha256 of its data>" of the labels, pixels and shapes
(written or not) of all splits, sorted.
"""

import hashlib
import io
import json
import shutil
import sys
from contextlib import contextmanager, suppress

import numpy as np

from vit_plasticity.data.registry import FORMAT, SPLITS
from vit_plasticity.runtime.folders import new_folder

_HEADER_BYTES = 128  # room for the header, which states the number of images and is therefore written last


@contextmanager
def create(folder, name, *, source, licence):
    """A Writer for a new dataset, which appears at `folder` as a whole when the block ends well, else not at all.

    Yields None if another process made the dataset while this one waited for it. See `folders.new_folder`.
    """
    with new_folder(folder, "dataset.json") as temporary:
        if temporary is None:
            yield None
            return
        writer = Writer(temporary, name)
        try:
            yield writer
            writer.finish(source, licence)
        finally:
            writer.close()


class Writer:
    """Adds images to the splits of a dataset that is being written into `folder`.

    classes: the class names, to be set by who adds images. scratch: a folder for what is unpacked on the way.
    """

    def __init__(self, folder, name):
        self._folder, self._name = folder, name
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
        """Write what is known only now: headers, labels, shapes, and ``dataset.json``."""
        shutil.rmtree(self.scratch)
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

    def close(self):
        """Close the files, whatever became of them."""
        for split in self._splits.values():
            with suppress(OSError):  # the disk may be full, and then what is left in the buffer cannot go anywhere
                split.file.close()


class _SplitWriter:
    def __init__(self, folder, name):
        self._folder, self._name = folder, name
        self.labels, self._shapes = [], []
        self._digest = hashlib.sha256()
        self.file = (folder / f"{name}.pixels.npy").open("wb")
        self.file.write(bytes(_HEADER_BYTES))

    def extend(self, images, labels):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(labels):
            raise ValueError(
                f"expected uint8 images (n, H, W, 3) and n labels, got {images.dtype} {images.shape}, {len(labels)}"
            )
        data = np.ascontiguousarray(images).data
        self.file.write(data)
        self._digest.update(data)
        self.labels.extend(int(label) for label in labels)
        self._shapes.extend([images.shape[1:3]] * len(images))

    def finish(self, n_classes):
        labels, shapes = np.array(self.labels, np.int64), np.array(self._shapes, np.int32)
        if not 0 <= labels.min() <= labels.max() < n_classes:
            raise ValueError(f"{self._name}: labels from {labels.min()} to {labels.max()} with {n_classes} classes")
        uniform = (shapes == shapes[0]).all()
        total = int(shapes.prod(axis=1, dtype=np.int64).sum() * 3)
        self._write_header((len(shapes), *map(int, shapes[0]), 3) if uniform else (total,))
        digests = {f"{self._name}.pixels": self._digest.hexdigest()}
        for kind, array in {"labels": labels, "shapes": shapes}.items():
            digests[f"{self._name}.{kind}"] = hashlib.sha256(array.data).hexdigest()
            if kind == "labels" or not uniform:
                np.save(self._folder / f"{self._name}.{kind}.npy", array, allow_pickle=False)
        return digests

    def _write_header(self, shape):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        text = header.getvalue()
        # The padding that fills the room is part of the header, and its length stands in bytes 8 and 9.
        text = (
            text[:8]
            + (_HEADER_BYTES - 10).to_bytes(2, "little")
            + text[10:].rstrip(b" \n").ljust(_HEADER_BYTES - 11)
            + b"\n"
        )
        self.file.seek(0)
        self.file.write(text)
        self.file.close()
