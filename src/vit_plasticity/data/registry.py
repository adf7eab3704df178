"""Datasets: which there are (name → how to fetch, verify, split), and reading a prepared one from disk.

The registry is the table ``datasets.csv`` beside this module, one row per file to download; a further row with an empty
name adds a file to the dataset above it. A name such as ``digits_c_{snow|contrast}_{1|2}`` stands for one dataset per
choice. The environment variable VIT_PLASTICITY_DATASETS may name a table of the same columns, whose datasets are added
and replace those of equal name: to pin another mirror or checksum, or to test. Names that a config defines in
``catalog`` come on top. How a prepared dataset lies on disk: see `vit_plasticity.data.store`, which writes it.
"""

import csv
import difflib
import functools
import itertools
import json
import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vit_plasticity.data.fractals import FractalParams
from vit_plasticity.runtime.cli import InputError

TABLE = Path(__file__).with_name("datasets.csv")
TABLE_VARIABLE = "VIT_PLASTICITY_DATASETS"
SPLITS = ("train", "val", "test")
FORMAT = 2
SHORT_SIDE = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COLUMNS = ["name", "format", "classes", "train", "val", "test", "short_side"]
_COLUMNS += ["file", "url", "checksum", "bytes", "licence", "source", "note"]
_CATALOG = {
    "imagefolder": "{imagefolder: /path/to/folder}",
    "of": "{of: cifar10, per_class: 20, seed: 0}",
    "built_in": "{built_in: pet, short_side: 512}",
    "fractals": "{fractals: {classes: 32, images_per_class: 150, image_size: 32, seed: 0}}",
}
_ALLOWED = {
    "imagefolder": ("a path", lambda value: isinstance(value, str) and value),
    "short_side": ("a count of pixels", lambda value: type(value) is int and value > 0),
    "smallest_class": ("a count of images", lambda value: type(value) is int and value > 0),
    "may_leave_out": ("a share from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1),
    "built_in": ("the name of a dataset of the table", lambda value: isinstance(value, str) and value in registry()),
    "of": ("the name of another dataset", lambda value: isinstance(value, str) and _NAME.fullmatch(value)),
    "per_class": ("a count of images, 2 or more", lambda value: type(value) is int and value >= 2),
    "seed": ("a whole number from 0 to 4294967295", lambda value: type(value) is int and 0 <= value < 2**32),
}
"""Key of a catalog entry → (what it must be, a test of that)."""


@dataclass(frozen=True)
class RemoteFile:
    """One file to download.

    url: where it is; empty for what a user must bring, and `note` then says from where.
    checksum: ``md5:…`` or ``sha256:…`` as published; empty where none is known, and then the first download is trusted.
    bytes: its size; None where not known.
    """

    name: str
    url: str
    checksum: str = ""
    bytes: int | None = None
    note: str = ""


@dataclass(frozen=True)
class DatasetEntry:
    """How one dataset is made.

    format: which preparation `fetch` runs.
    variant: the choices that a name pattern stands for, such as ("snow", "5").
    options: what a catalog entry says.
    classes, sizes: their number, and images per split, where the source publishes them.
    short_side: photographs are stored so that their shorter side has at most this many pixels; None keeps them.
    """

    name: str
    format: str
    variant: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    classes: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    short_side: int | None = None
    files: tuple[RemoteFile, ...] = ()
    licence: str = ""
    source: str = ""

    @property
    def recipe(self):
        """What decides the content of the dataset as far as the table of datasets says it, as a JSON text: addresses of
        files may change without the dataset."""
        files = [(file.name, file.checksum, file.bytes) for file in self.files]
        return json.dumps([self.format, self.variant, self.classes, self.sizes, self.short_side, files])


def lookup(name, catalog=None):
    """The DatasetEntry of a name; `catalog` maps further names to the entries of ``catalog.datasets``.

    Raises InputError, with close matches, for an unknown name, one unfit for a path, a catalog entry of another form,
    and a catalog name that is built in already: a name must mean one dataset.
    """
    catalog, known = catalog or {}, registry()
    if not _NAME.fullmatch(name):
        raise InputError(
            f"dataset name {name!r}: use letters, digits, '_', '-' and '.', starting with a letter or digit"
        )
    if name in catalog and name in known:
        raise InputError(f"dataset {name!r} is built in; give the catalog entry another name")
    if name in catalog:
        return _catalog_entry(name, catalog[name], catalog)
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, [*known, *catalog], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    patterns = [row["name"] for rows in _rows(_tables()) for row in rows[:1]]
    raise InputError(
        f"unknown dataset {name!r}: {hint}Choose from {', '.join([*patterns, *catalog])}; "
        f"or define it in catalog.datasets, e.g. {name}: {_CATALOG['imagefolder']}"
    )


def problem(entry, *, trained):
    """Why a dataset cannot serve, as far as that can be known before it is fetched; None if nothing speaks against it.

    trained: whether cells are to be trained on it.
    """
    if entry.format == "imagefolder":
        folder = Path(entry.options["path"]).expanduser()
        if not folder.is_dir():
            return f"the folder {folder} does not exist (seen from {Path.cwd()})"
        if trained and not any(path.is_dir() for path in folder.iterdir()):
            return f"{folder} has no folders of classes; without them it serves as a source of plasticity only"
    if trained and entry.format == "imagenet":
        return "it has a test split only, so it serves as a source of plasticity only"
    return None


def registry():
    """All built-in datasets: name → DatasetEntry, in the order of the table."""
    return _registry(_tables())


def open_dataset(folder):
    """The prepared `Dataset` in a folder, memory-mapped: processes on one node share its pages.

    Raises InputError if the folder is not a dataset that `fetch` wrote, or was cut short.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise InputError(f"{folder}: dataset format {about['format']}, this version reads {FORMAT}; fetch it again")
        splits = {name: _open_split(folder, name, size) for name, size in about["splits"].items()}
        return Dataset(about["name"], tuple(about["classes"]), about["fingerprint"], splits)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder} is not a complete dataset ({error!r}). Remove it and make it again: "
            f"python -m vit_plasticity.fetch dataset {folder.name} --output {folder}"
        ) from error


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset. `fingerprint` is the SHA-256 of all its arrays: equal only if every pixel and label is."""

    name: str
    classes: tuple[str, ...]
    fingerprint: str
    splits: dict[str, "Split"]

    def split(self, name):
        """One Split. Raises InputError if this dataset lacks it (imagenet, say, has only ``test``)."""
        if name not in self.splits:
            raise InputError(f"dataset {self.name} has no {name} split; it has {', '.join(self.splits)}")
        return self.splits[name]


@dataclass(frozen=True)
class Split:
    """images: n images (`Images`); labels: (n,) int64, indices of classes."""

    images: "Images"
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)


class Images:
    """A sequence of uint8 images (H, W, 3) that lie one after the other in `pixels`.

    uniform: the (n, H, W, 3) array itself when all images have one size, else None.
    """

    def __init__(self, pixels, shapes=None):
        self.uniform = pixels if shapes is None else None
        self._pixels, self._shapes = pixels, shapes
        if shapes is not None:
            self._ends = np.cumsum(shapes.prod(axis=1, dtype=np.int64) * 3)

    def __len__(self):
        return len(self._pixels if self._shapes is None else self._shapes)

    def shorter_sides(self):
        """Pixels of the shorter side of each image: (n,) whole numbers."""
        shapes = np.full((len(self), 2), self._pixels.shape[1:3]) if self._shapes is None else self._shapes
        return shapes.min(axis=1)

    def __getitem__(self, index):
        index = range(len(self))[index]  # refuses what lies outside, and counts negative indices from the end
        if self._shapes is None:
            return self._pixels[index]
        height, width = map(int, self._shapes[index])
        end = int(self._ends[index])
        return self._pixels[end - height * width * 3 : end].reshape(height, width, 3)


def _open_split(folder, name, size):
    labels, shapes = (
        np.load(folder / f"{name}.{kind}.npy", mmap_mode="r", allow_pickle=False) for kind in ("labels", "shapes")
    )
    if len(labels) != size or len(shapes) not in (1, size):
        raise ValueError(f"{name}: {size} images expected, {len(labels)} labels and {len(shapes)} shapes found")
    pixels = np.memmap(folder / f"{name}.pixels", np.uint8, mode="r")
    expected = int(np.broadcast_to(shapes, (size, 2)).prod(axis=1, dtype=np.int64).sum() * 3)
    if len(pixels) != expected:
        raise ValueError(f"{name}: {expected} bytes of pixels expected, {len(pixels)} found")
    if len(shapes) == 1:
        return Split(Images(pixels.reshape(size, *map(int, shapes[0]), 3)), labels)
    return Split(Images(pixels, shapes), labels)


def _tables():
    extra = os.environ.get(TABLE_VARIABLE)
    return (TABLE, Path(extra)) if extra else (TABLE,)


@functools.cache
def _registry(tables):
    return {entry.name: entry for rows in _rows(tables) for entry in _entries(rows)}


@functools.cache
def _rows(tables):
    """The rows of the tables, one list per dataset: its own row and those of its further files."""
    groups = []
    for table in tables:
        try:
            with table.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if reader.fieldnames != _COLUMNS:
                    raise InputError(f"{table}: the columns must be {','.join(_COLUMNS)}; got {reader.fieldnames}")
                for row in reader:
                    if row["name"]:
                        groups.append([])
                    groups[-1].append(row)
        except (OSError, UnicodeDecodeError, IndexError) as error:
            raise InputError(f"the table of datasets {table} cannot be read ({error}); see {TABLE_VARIABLE}") from error
    return groups


def _entries(rows):
    """The entries that the rows of one dataset stand for: one per choice in its name pattern."""
    row = rows[0]
    pieces = re.split(r"\{(.*?)\}", row["name"])
    for variant in itertools.product(*(choices.split("|") for choices in pieces[1::2])):
        yield DatasetEntry(
            name="".join(itertools.chain(*itertools.zip_longest(pieces[::2], variant, fillvalue=""))),
            format=row["format"],
            variant=variant,
            classes=_int(row["classes"]),
            sizes={split: int(row[split]) for split in SPLITS if row[split]},
            short_side=_int(row["short_side"]),
            files=tuple(_remote_file(r) for r in rows if r["file"]),
            licence=row["licence"],
            source=row["source"],
        )


def _remote_file(row):
    return RemoteFile(row["file"], row["url"], row["checksum"], _int(row["bytes"]), row["note"])


def _int(text):
    return int(text) if text else None


def _catalog_entry(name, given, catalog):
    if not isinstance(given, dict) or len(given.keys() & _CATALOG.keys()) != 1:
        raise InputError(f"catalog.datasets.{name}: got {given!r}; write one of {' or '.join(_CATALOG.values())}")
    if "fractals" in given:
        options = given["fractals"]
        allowed = [f.name for f in fields(FractalParams)]
        if len(given) > 1 or not isinstance(options, dict) or options.keys() - set(allowed):
            raise InputError(f"catalog.datasets.{name}: got {given!r}; a map fractals may hold {', '.join(allowed)}")
        FractalParams(**options)
        return replace(registry()["fractals"], name=name, options=options)
    if "built_in" in given:
        options = _options(name, given, ("built_in", "short_side"))
        whole = registry()[options["built_in"]]
        return replace(whole, name=name, short_side=options.get("short_side", whole.short_side))
    if "of" in given:
        options = _options(name, {"seed": 0} | given, ("of", "per_class", "seed"))
        return _subset(name, options, catalog)
    options = _options(name, {"short_side": SHORT_SIDE} | given, [*_ALLOWED][:4])
    short_side, path = options.pop("short_side"), options.pop("imagefolder")
    options["path"] = path
    return DatasetEntry(name, "imagefolder", options=options, short_side=short_side, source=f"the folder {path}")


def _options(name, options, allowed):
    """The options of a catalog entry, of which those without a default must be given."""
    if unknown := options.keys() - set(allowed):
        raise InputError(f"catalog.datasets.{name}: unknown key {min(unknown)!r}; allowed are {', '.join(allowed)}")
    if "of" in options and "per_class" not in options:
        raise InputError(f"catalog.datasets.{name}: per_class is missing; write {_CATALOG['of']}")
    for key, value in options.items():
        if not _ALLOWED[key][1](value):
            raise InputError(f"catalog.datasets.{name}: {key} must be {_ALLOWED[key][0]}, got {value!r}")
    return options


def _subset(name, options, catalog):
    """The entry of a subset. Whether a whole that is not built in is there shows when it is read."""
    whole = options["of"]
    if whole == name or "of" in (catalog.get(whole) or {}):
        raise InputError(f"catalog.datasets.{name}: of {whole!r}, which is no whole dataset; name one that is")
    source = f"{options['per_class']} images per class of {whole}, seed {options['seed']}"
    built_in = registry().get(whole)
    if built_in is None or not built_in.classes:
        return DatasetEntry(name, "subset", options=options, source=source)
    val = max(1, round(0.2 * options["per_class"]))
    sizes = {"train": built_in.classes * (options["per_class"] - val), "val": built_in.classes * val}
    return DatasetEntry(
        name,
        "subset",
        options=options,
        classes=built_in.classes,
        sizes=sizes | {key: n for key, n in built_in.sizes.items() if key == "test"},
        licence=built_in.licence,
        source=f"{source}: {built_in.source}",
    )
