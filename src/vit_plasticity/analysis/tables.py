"""Tables: one Parquet file written atomically with its key and provenance; many read into one frame. No torch.

Every file carries, in its Parquet metadata under ``vit_plasticity``, a JSON object: the study, the stage and its `rev`,
the key (model, dataset, component, seed: those that apply) and where the numbers come from. The key stands in the rows
too, so that files can be concatenated.
"""

import functools
import json
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vit_plasticity import __version__
from vit_plasticity.runtime import source
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.files import atomic

_METADATA = b"vit_plasticity"
_PACKAGES = ("numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "timm", "torch", "torchvision")
KEYS = ("model", "dataset", "component", "seed")


@functools.cache
def provenance(device="cpu"):
    """Where numbers come from: commit, packages, interpreter, device; a dict of JSON values."""
    return {
        **_commit(),
        "source": source.fingerprint(),
        "packages": {"vit-plasticity": __version__} | {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device,
    }


def write(path, rows, *, study, stage, rev, key, device="cpu", spec=None, settings=None, inputs=None):
    """Write `rows` (a DataFrame, or a list or dict of columns) to the Parquet file `path`, atomically.

    key: dict of the wildcards that identify the file; its values become the first columns. spec: the hash of all that
    the numbers depend on, where the stage has one. settings: dict; inputs: the fingerprint of each input, by its name.
    """
    table = rows if isinstance(rows, pa.Table) else _to_table(rows)
    for position, (name, value) in enumerate(key.items()):
        if name in table.column_names:
            raise ValueError(f"{path}: column {name!r} is part of the key and must not be given twice")
        table = table.add_column(position, name, pa.array([value] * table.num_rows))
    about = {"study": study, "stage": stage, "rev": rev, "key": key, "spec": spec, "provenance": provenance(device)}
    write_table(path, table, about | {"settings": settings, "inputs": inputs})


def write_table(path, table, about):
    """Write an Arrow table with the JSON-able dict `about` in its metadata, atomically."""
    schema_metadata = {**(table.schema.metadata or {}), _METADATA: json.dumps(about, sort_keys=True).encode()}
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(schema_metadata), temporary, compression="zstd")


def about(path):
    """What a table says of itself: study, stage, rev, key, provenance. Raises InputError for any other file."""
    return _about(path, _read_schema(path))


def read_many(paths):
    """Read tables of one stage into one: (Arrow table in the order of `paths`, the dict `about` of each).

    Raises InputError for no path at all, or a file that is not ours.
    """
    paths = [Path(p) for p in paths]
    if not paths:
        raise InputError("no table to read: name at least one Parquet file")
    if len(paths) == 1:
        tables = [_read(paths[0])]
    else:
        with ThreadPoolExecutor(8) as pool:
            tables = list(pool.map(_read, paths))
    abouts = [_about(path, table.schema) for path, table in zip(paths, tables, strict=True)]
    whole = pa.concat_tables([t.replace_schema_metadata(None) for t in tables], promote_options="permissive")
    return whole, abouts


def _to_table(rows):
    if isinstance(rows, dict):
        return pa.table(rows)
    if isinstance(rows, list):
        return pa.Table.from_pylist(rows)
    return pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)


def _read(path):
    try:
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            return file.read(use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def _read_schema(path):
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def _unreadable(path, error):
    return InputError(f"{path}: cannot be read as Parquet ({error}); delete it and make it again")


def _about(path, schema):
    text = (schema.metadata or {}).get(_METADATA)
    if text is None:
        raise InputError(f"{path}: not a table of this project (its metadata lacks {_METADATA.decode()!r})")
    return json.loads(text)


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit():
    """The commit of the checkout that this package runs from, and whether it has changes; None outside a checkout."""

    def git(*arguments):
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        if not Path(git("rev-parse", "--show-toplevel"), "src", "vit_plasticity").is_dir():
            raise FileNotFoundError
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
