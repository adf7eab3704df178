"""Folders of images as they exist: which images there are, of which class, in which split, and what is left out.

The folder holds one folder per split with one folder per class in each, or the class folders themselves, or images
alone, which have no class. Folders of splits go by the names that the world gives them, in any case: train, Training,
valid, validation, test, val2017, images_train beside images_test. Two folders with such names are never classes; one
of them that holds no folders is (a class of trains).
"""

import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_plasticity.data import images
from vit_plasticity.data.registry import SPLITS
from vit_plasticity.data.splits import split_labels
from vit_plasticity.runtime.cli import InputError

UNLABELLED = ("unlabelled",)
"""The classes of a folder of images without class folders, which are all in the split test."""

_STEMS = {"train": "train|training|trn", "test": "test|testing|tst"}
_STEMS["val"] = "val|valid|validation|validate|dev|development|eval|evaluation"
_KINDS = "sets?|split|data|images?|imgs?"
_SPLIT = {
    split: re.compile(rf"(.*[ _.-]|\d*)(?:{stems})((?:[^a-z]|{_KINDS}).*|)", re.DOTALL)
    for split, stems in _STEMS.items()
}
_NOTHING = re.compile(r"\d*[ _.-]?", re.DOTALL), re.compile(rf"[ _.-]?(?:{_KINDS})?[ _.-]?v?\d*", re.DOTALL)
_PLAIN = [(split, "") for split in SPLITS]
_SYSTEM = {"__macosx", "__pycache__", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "cvs"}
_SYSTEM |= {"system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_HIDDEN = "hidden or made by a system"


@dataclass
class Listing:
    """What a folder holds: the images, in sorted order, and what else there is.

    paths: n paths. labels, splits: (n,) class indices and names of splits. classes: their names.
    left_out: how many files are left out, by kind; unread: how many of them look like images.
    """

    paths: list[Path]
    labels: np.ndarray
    splits: np.ndarray
    classes: list[str]
    left_out: Counter
    unread: int = 0


def split_of(name):
    """(split, rest) that the name of a folder stands for: ("val", "") for Valid2; ("test", "asl_|") for asl_test, which
    is a split only where another one has the same rest; (None, "") for other names."""
    plain = unicodedata.normalize("NFC", name).strip().casefold()
    for split, pattern in _SPLIT.items():
        if found := pattern.fullmatch(plain):
            plain_rest = all(nothing.fullmatch(part) for nothing, part in zip(_NOTHING, found.groups(), strict=True))
            return split, "" if plain_rest else "|".join(found.groups())
    return None, ""


def list_folder(root, smallest_class=0, split=True):
    """The `Listing` of a folder. smallest_class: classes with fewer images are left out. split: False for class folders
    alone, whose images are all put into ``test``.

    Raises InputError for a folder that cannot serve as a dataset.
    """
    finder = _Finder()
    roots = _split_folders(root) if split else {"test": root}
    strange = [] if root in roots.values() else finder.beside(root, roots.values())
    classes = {split: finder.top(folder) for split, folder in roots.items()}
    finder.met |= {_identity(path) for folders in classes.values() for path in folders.values()}
    found = {
        split: {_class_name(path): finder.images(path) for path in folders.values()}
        for split, folders in classes.items()
    }
    if root in roots.values() and finder.loose and not any(*map(dict.values, found.values())):
        labels, splits = np.zeros(len(finder.loose), np.int64), np.full(len(finder.loose), "test")
        return Listing(finder.loose, labels, splits, list(UNLABELLED), finder.left_out, finder.unread)
    if finder.loose:
        finder.left_out["image outside the class folders"] += len(finder.loose)
        finder.unread += len(finder.loose)
    listing = _assigned(finder, root, roots, found, smallest_class)
    if strange:
        raise InputError(
            f"{root}: {_some(strange)} is neither a split, as {_some(f.name for f in roots.values())} are, nor a class "
            "in one; move it away"
        )
    return listing


def _split_folders(root):
    """Split → its folder; {"train": root} for a folder whose folders are classes, or which has none."""
    folders = _scan(root).folders
    stands = {name: split_of(name) for name in folders}
    rests = Counter(rest for rest, _ in {(rest, split) for split, rest in stands.values() if split})
    # "steam train" is a class; asl_train is a split where asl_test stands beside it.
    splits = {name: split for name, (split, rest) in stands.items() if split and (not rest or rests[rest] > 1)}
    deep = [name for name in splits if _scan(folders[name]).folders]
    if len(splits) < 2 and not deep:
        for path in folders.values():
            inside = [name for name in _scan(path).folders if split_of(name) in _PLAIN]
            if len(inside) > 1:
                raise InputError(
                    f"{path} holds {_some(inside)}, which are splits and no classes: give that folder itself"
                )
        return {"train": root}
    double = [name for name, split in splits.items() if [*splits.values()].count(split) > 1]
    if double:
        raise InputError(f"{root}: {_some(double)} stand for the same split; keep one of them")
    if flat := [name for name in splits if name not in deep]:
        raise InputError(
            f"{root}: {_some(flat)} must be splits by their names, but hold no class folders; put a folder of images "
            "per class into each, or rename them if they are classes"
        )
    if not {"train", "test"} <= set(splits.values()):
        raise InputError(
            f"{root} has {_some(splits)} but needs both train/ and test/; without val/, it is drawn from train"
        )
    by_split = {split: folders[name] for name, split in splits.items()}
    return {split: by_split[split] for split in SPLITS if split in by_split}


def _assigned(finder, root, roots, found, smallest_class):
    """The Listing of the images found: split → class → paths."""
    sizes = {
        name: min(len(folder.get(name, ())) for folder in found.values())
        for name in sorted(set().union(*found.values()))
    }
    if small := [name for name in sizes if sizes[name] < smallest_class]:
        finder.left_out[f"image of a class below smallest_class ({_some(small)})"] += sum(
            len(folder.get(name, ())) for folder in found.values() for name in small
        )
    classes = [name for name in sizes if name not in small]
    if len(classes) < 2:
        raise InputError(
            f"{root}: found {len(classes)} class folder ({_some(classes)}); a classifier needs at least two. "
            "A source of plasticity needs none: give the folder that holds the images themselves"
        )
    for split, folder in found.items():
        if empty := [name for name in classes if not folder.get(name)]:
            raise InputError(
                f"{roots[split]}: no image of class {_some(empty)}; every class needs one in every split. "
                "smallest_class: 1 beside imagefolder leaves such classes out"
            )
    needed = 1 + len({"val", "test"} - set(found)) if "train" in found else 1
    if small := [f"{name} ({sizes[name]})" for name in classes if needed > 1 and len(found["train"][name]) < needed]:
        raise InputError(
            f"{roots['train']}: too few images of class {_some(small)}; each needs {needed} to draw splits from. "
            f"smallest_class: {needed} beside imagefolder leaves such classes out"
        )
    paths, labels, splits = [], [], []
    for split, folder in found.items():
        labels.append(np.repeat(np.arange(len(classes)), [len(folder[name]) for name in classes]))
        n = len(labels[-1])
        splits.append(split_labels(labels[-1], found) if split == "train" else np.full(n, split, "<U5"))
        paths += [path for name in classes for path in folder[name]]
    return Listing(paths, np.concatenate(labels), np.concatenate(splits), classes, finder.left_out, finder.unread)


class _Finder:
    """Finds images, and counts what it leaves out.

    met: identities of folders; one that is met again, through a link, is not read again. loose: images that lie beside
    the class folders.
    """

    def __init__(self):
        self.left_out, self.unread, self.met, self.loose = Counter(), 0, set(), []

    def top(self, folder):
        """The class folders of a split: {name: path}."""
        self.met.add(_identity(folder))
        scan = self._counted(folder)
        self.loose += sorted(filter(self._is_image, scan.files))
        return scan.folders

    def beside(self, root, splits):
        """Count what lies beside the folders of splits; the names of the folders there that hold images."""
        self.met.add(_identity(root))
        scan = self._counted(root)
        self.loose += sorted(filter(self._is_image, scan.files))
        return [name for name, path in scan.folders.items() if path not in splits and self.images(path)]

    def images(self, folder):
        """The images in a folder, at any depth, sorted; a folder behind a link is read once."""
        found, pending = [], [folder]
        while pending:
            scan = self._counted(pending.pop())
            found += filter(self._is_image, scan.files)
            for path in scan.folders.values():
                identity = _identity(path)
                if identity in self.met:
                    self.left_out["link to a folder that was read"] += 1
                else:
                    self.met.add(identity)
                    pending.append(path)
        return sorted(found)

    def _counted(self, folder):
        scan = _scan(folder)
        if scan.hidden:
            self.left_out[_HIDDEN] += scan.hidden
        return scan

    def _is_image(self, path):
        kind = images.kind_of(path)
        if kind == images.IMAGE:
            return True
        suffix = path.suffix.lower() or "no suffix"
        self.left_out[f"{kind} ({suffix})"] += 1
        self.unread += kind == images.UNREAD
        return False


@dataclass
class _Scan:
    folders: dict[str, Path]
    files: list[Path]
    hidden: int


def _scan(folder):
    """What lies in a folder: subfolders and files (or links to some), by name, and how much is hidden or a system's."""
    scan = _Scan({}, [], 0)
    for path in sorted(folder.iterdir()):
        name = path.name
        if name.startswith(".") or name.casefold() in _SYSTEM:
            scan.hidden += 1
        elif path.is_dir():
            scan.folders[name] = path
        else:
            scan.files.append(path)
    return scan


def _identity(folder):
    status = folder.stat()
    return status.st_dev, status.st_ino


def _class_name(folder):
    """The name of a class as text, the same however a file system writes its accents."""
    name = unicodedata.normalize("NFC", folder.name)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        got = os.fsencode(folder.name)
        raise InputError(f"{folder.parent}: the name of a class must be UTF-8, got {got!r}; rename it") from error
    return name


def _some(names):
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
