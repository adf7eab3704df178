"""A lock between processes, also of several machines that share a file system on which flock works."""

import fcntl
import os
import sys
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(path, what):
    """Hold the lock file `path` for the length of the block; yields whether another process had it at first.

    what: completes the message "waiting for another process that …" on stderr. The lock goes with its holder, however
    that ends, and whoever waited must look whether there is still something to do.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    print(f"waiting for another process that {what} ({path} is locked)", file=sys.stderr, flush=True)
                waited = True
                fcntl.flock(file, fcntl.LOCK_EX)
            # The holder before us removed the file as it left: a lock on a removed file keeps nobody out.
            if _is_at(file, path):
                try:
                    yield waited
                finally:
                    path.unlink()
                return


def _is_at(file, path):
    """Whether an open file is still the one that `path` names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
