"""Files that appear whole or not at all, in folders that may lie elsewhere. Standard library only."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path):
    """A temporary path beside `path`, renamed onto it when the block ends well, and removed when it does not.

    The data is flushed to disk before the rename, so that a crash leaves the old file, the new file, or none.
    """
    path = Path(path)
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path):
    """Make a folder and its parents where there are none, also behind a link to a place that does not exist yet."""
    Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
