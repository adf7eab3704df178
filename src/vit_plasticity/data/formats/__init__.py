"""How datasets are prepared from what they come as: one file per format.

A function of this folder that is decorated with `@dataset_format` is a format of its name, and nothing else lists it:

    @dataset_format
    def NAME(entry, writer, source):

It adds the images of a `registry.DatasetEntry` to a `store.Writer`, whose `classes` it sets. `source.get(file)` gives
the path of a downloaded file, verified; `writer.scratch` is a folder for what is unpacked, which goes at the end.
"""

import functools
import importlib
import re
from pathlib import Path

from vit_plasticity.data.store import create
from vit_plasticity.runtime.cli import InputError

_DEFINITION = re.compile(r"^@dataset_format\ndef (\w+)\(entry, writer, source\):$", re.MULTILINE)


def dataset_format(function):
    """Declare a format."""
    return function


@functools.cache
def known():
    """Every format of this folder, without importing one: {name: the module that has it}."""
    return {
        name: f"{__name__}.{path.stem}"
        for path in sorted(Path(__file__).parent.glob("*.py"))
        for name in _DEFINITION.findall(path.read_text(encoding="utf-8"))
        if path.name != "__init__.py"
    }


def fetch_dataset(entry, output, source, threads=None):
    """Prepare the dataset of a DatasetEntry in the folder `output`, from what the downloads.Source gives, on `threads`
    threads (one for each CPU core).

    Raises InputError if it has not the number of classes and images that its entry states.
    """
    if entry.format not in known():
        raise InputError(f"dataset {entry.name}: unknown format {entry.format!r}; choose from {', '.join(known())}")
    with create(output, entry.name, source=entry.source, licence=entry.licence, threads=threads) as writer:
        if writer is None:
            return
        getattr(importlib.import_module(known()[entry.format]), entry.format)(entry, writer, source)
        found, stated = writer.sizes(), entry.sizes
        wrong = {split: size for split, size in stated.items() if found.get(split) != size}
        if wrong or (entry.classes or len(writer.classes)) != len(writer.classes):
            raise InputError(
                f"dataset {entry.name} has {len(writer.classes)} classes and {found} images, but the table of datasets "
                f"states {entry.classes} and {stated}: is the archive another version?"
            )
