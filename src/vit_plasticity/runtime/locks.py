"""A lock between processes, also of several machines that share a file system on which flock works."""

import errno
import fcntl
import sys
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

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
    lock = take(path)
    if waited := lock is None:
        print(f"waiting for another process that {what} ({path} is locked)", file=sys.stderr, flush=True)
        lock = take(path, wait=True)
    with lock:
        try:
            yield waited
        finally:
            path.unlink()  # whoever waits for it finds that it is gone, and makes a new one


def held(path):
    """Whether a process holds the lock file `path`."""
    try:
        # Shared, which filelock has not: two that look at the same time do not take each other for its holder.
        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no such file, or no flock here
        return False
    return False


def take(path, wait=False):
    """Lock the file `path`: a context whose end frees it, as the end of the process does; None if another has it.

    Raises InputError where the file system knows no flock, as NFS and Lustre may be mounted.
    """
    try:
        return FileLock(path, fallback_to_soft=False).acquire(blocking=wait, poll_interval=0.2)
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL):
            raise
        raise InputError(
            f"flock does not work in {path.parent} ({error.strerror}), so two processes could write the same files; "
            "use a folder on a local disk, or on a shared file system mounted with flock"
        ) from error
