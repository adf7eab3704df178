"""From what a user names to a model folder and a prepared dataset, kept in a cache for the next time.

A model is a folder in the format of timm or of transformers, a model that ships with the package, a tag of timm, or
ORGANISATION/NAME, a repository of the Hugging Face hub. A dataset is a folder that `fetch` prepared, or one of images.
"""

import hashlib
import json
import os
from pathlib import Path

from vit_plasticity.data import registry
from vit_plasticity.data.downloads import Source
from vit_plasticity.data.formats import fetch_dataset
from vit_plasticity.runtime.cli import InputError


def default_cache():
    """The user's cache folder of this program, made where it is not there. Raises InputError where it cannot be."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vit-plasticity"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise InputError(f"no folder to keep things in: {error}; give one that can be written as --cache") from error
    return folder


def model_folder(given, cache, offline=False):
    """The folder of the model that `given` names, with provenance; fetched or copied into the cache where needed.

    Raises InputError for a folder that holds no model, a name that timm does not know, or weights that cannot be had.
    """
    from vit_plasticity.vit import fetch
    from vit_plasticity.vit.transformers_format import PROCESSOR

    path = Path(given).expanduser()
    if path.is_dir():
        if (path / "provenance.json").is_file():
            return path
        key = _digest([path / name for name in (*fetch.FILES, PROCESSOR) if (path / name).is_file()])
        entry, output = {"local": str(path)}, Path(cache, "models", f"{path.resolve().name}-{key}")
    elif path.exists() or path.is_absolute() or str(given).startswith("."):
        raise InputError(f"--model {given}: not a folder; give a model folder, or a name of timm's such as {_EXAMPLE}")
    else:
        entry, output = {"shipped" if shipped(given) else "timm": str(given)}, Path(cache, "models", str(given))
    if not (output / "provenance.json").is_file():
        output.parent.mkdir(parents=True, exist_ok=True)
        fetch.fetch_model(str(given), entry, output, Source(Path(cache, "downloads"), offline, None))
    return output


def shipped(name):
    """Whether a model of that name comes with the package."""
    from vit_plasticity.vit import fetch

    return (fetch.SHIPPED / name / "provenance.json").is_file()


_EXAMPLE = "vit_small_patch14_dinov2.lvd142m"


def dataset_folder(given, cache):
    """The prepared dataset that `given` names; a folder of images is prepared in the cache, anew when it has changed.

    Raises InputError for a folder that cannot serve as a dataset (see `data.folders`).
    """
    path = Path(given).expanduser()
    if not path.is_dir():
        raise InputError(f"--data {given}: no such folder; give a folder with one folder of images per class")
    if (path / "dataset.json").is_file():
        return path
    name = _name(path)
    output = Path(cache, "datasets", f"{name}-{_digest_of_listing(path)}")
    if not (output / "dataset.json").is_file():
        output.parent.mkdir(parents=True, exist_ok=True)
        entry = registry.lookup(name, {name: {"imagefolder": str(path.resolve()), "may_leave_out": 1.0}})
        fetch_dataset(entry, output, None)
    return output


def left_out(folder):
    """A sentence on the files of an image folder that did not come into its prepared dataset; none where all did."""
    kinds = json.loads(Path(folder, "dataset.json").read_text(encoding="utf-8")).get("left_out", {})
    return [f"left out of the folder: {', '.join(f'{n} × {kind}' for kind, n in kinds.items())}."] if kinds else []


def _name(path):
    """A dataset name made of a folder's: other signs than those allowed become "_"; never a built-in name."""
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in path.resolve().name)
    cleaned = cleaned.lstrip("._-") or "images"
    return f"{cleaned}_folder" if cleaned in registry.registry() else cleaned


def _digest(files):
    """Eight hexadecimal digits of the SHA-256 over files."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as data:
            total.update(hashlib.file_digest(data, "sha256").digest())
    return total.hexdigest()[:8]


def _digest_of_listing(folder):
    """Eight hexadecimal digits that change when a file below a folder is added, removed or written anew."""
    listing = sorted(
        f"{file.relative_to(folder)}\0{file.stat().st_size}\0{file.stat().st_mtime_ns}"
        for file in _files_below(folder)
        if file.is_file()
    )
    return hashlib.sha256("\n".join([str(folder.resolve()), *listing]).encode(errors="surrogateescape")).hexdigest()[:8]


def _files_below(folder):
    """Every path below a folder that is no folder; links to folders are followed, each folder once."""
    met = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in met:
            folders.clear()
            continue
        met.add((status.st_dev, status.st_ino))
        yield from (Path(place, file) for file in files)
