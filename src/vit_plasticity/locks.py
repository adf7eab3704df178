"""A lock between processes, also of several machines that share a file system."""

import fcntl
import sys
from contextlib import contextmanager


@contextmanager
def hold(path, what):
    """Hold the lock file `path` for the length of the block; yields whether another process had it at first.

    what: completes the message "waiting for another process that …" on stderr. The file stays when the block ends,
    since removing it could let two processes in; the lock goes with its holder, however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        waited = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that {what} ({path} is locked)", file=sys.stderr, flush=True)
            waited = True
            fcntl.flock(file, fcntl.LOCK_EX)
        yield waited
