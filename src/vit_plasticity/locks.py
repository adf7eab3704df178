"""A lock between processes, also of several machines that share a file system."""

import fcntl
import sys
import time
from contextlib import contextmanager


@contextmanager
def hold(path, what):
    """Hold the lock file `path` for the length of the block; yields the seconds waited for it.

    what: completes the message "waiting for another process that …" on stderr. The file stays when the block ends,
    since removing it could let two processes in; the lock goes with its holder, however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        started = time.monotonic()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that {what} ({path} is locked)", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield time.monotonic() - started
