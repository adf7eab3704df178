"""A lock between processes, also of several machines that share a file system on which flock works."""

import errno
import fcntl
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.files import make_folder


@contextmanager
def hold(path, what):
    """Hold the lock file `path` for the length of the block; yields whether another process had it at first.

    what: completes the message "waiting for another process that …" on stderr. The lock goes with its holder, however
    that ends, and whoever waited must look whether there is still something to do.
    """
    path = Path(path)
    make_folder(path.parent)
    waited = False
    while True:
        with path.open("a", encoding="utf-8") as file:
            if not flock(file, path, fcntl.LOCK_NB):
                if not waited:
                    print(f"waiting for another process that {what} ({path} is locked)", file=sys.stderr, flush=True)
                waited = True
                flock(file, path)
            # The holder before us removed the file as it left: a lock on a removed file keeps nobody out.
            if _is_at(file, path):
                try:
                    yield waited
                finally:
                    path.unlink()
                return


def held(path):
    """Whether a process holds the lock file `path`."""
    try:
        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no such file, or no flock here
        return False
    return False


def flock(file, path, flags=0):
    """Lock an open file; False where another process has it and `flags` say not to wait.

    Raises InputError where the file system knows no flock, as NFS and Lustre may be mounted.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL):
            raise
        raise InputError(
            f"flock does not work in {path.parent} ({error.strerror}), so two processes could write the same files; "
            "use a folder on a local disk, or on a shared file system mounted with flock"
        ) from error
    return True


def _is_at(file, path):
    """Whether an open file is still the one that `path` names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
