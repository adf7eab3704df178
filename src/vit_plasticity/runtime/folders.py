"""A folder that appears as a whole, or not at all, though several processes may want to make it."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from vit_plasticity.runtime import locks
from vit_plasticity.runtime.cli import InputError


@contextmanager
def new_folder(folder, mark):
    """A temporary folder, which takes the place of `folder` when the block ends well, and is removed when it does not.

    mark: the file by which a finished folder of this kind is known. Such a folder is replaced; anything else in its
    place raises InputError and is left alone. Only one process at a time makes a given folder; yields None if another
    one finished it while this one waited, and there is nothing left to do.
    """
    folder = Path(folder)
    with locks.hold(folder.parent / f".{folder.name}.lock", f"makes {folder}") as waited:
        if waited and (folder / mark).is_file():
            yield None
            return
        _check(folder, mark)
        prefix = f".{folder.name}~"  # no name of ours holds a tilde
        for left_over in folder.parent.glob(f"{prefix}*"):  # of a process that was killed, since we hold the lock
            shutil.rmtree(left_over)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
        try:
            yield temporary
            _land(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _check(folder, mark):
    if (folder.exists() or folder.is_symlink()) and not (folder / mark).is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            return
        raise InputError(f"--output {folder} is there already and holds no {mark}; remove it, or name another folder")


def _land(temporary, folder):
    for path in [*temporary.iterdir(), temporary]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o777 & ~mask)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.replace(folder)
