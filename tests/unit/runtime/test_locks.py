"""A lock that cannot be had is an error in words, not a traceback."""

import errno
import fcntl
import os

import pytest

from vit_plasticity.runtime import locks
from vit_plasticity.runtime.cli import InputError


def test_lock_goes_when_the_block_ends(tmp_path):
    path = tmp_path / "cell.lock"
    with locks.hold(path, "owns it") as waited:
        assert not waited
        assert locks.held(path)
        with path.open("a") as second, pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_file_system_without_flock_is_refused(number, tmp_path, monkeypatch):
    """As on NFS without a lock manager, or Lustre mounted without flock."""

    def fails(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(InputError, match=f"flock does not work in {tmp_path}"), locks.hold(tmp_path / "lock", "x"):
        pass


def test_other_errors_keep_their_number(tmp_path, monkeypatch):
    def fails(file, operation):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match="input/output"), locks.hold(tmp_path / "lock", "x"):
        pass
