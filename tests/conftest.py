"""What the tests share; their helper modules lie in tests/support/."""

import os
import subprocess
import sys
from unittest import mock

import processes
import pytest

from vit_plasticity import warm


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The working folder of the smoke study, run once for real. To be read only: tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("smoke") / "study"
    processes.snakemake(folder)
    return folder


@pytest.fixture
def study(smoke, tmp_path):
    """A copy of the finished smoke study, with Snakemake's records, for one test to change."""
    return processes.copy_study(smoke, tmp_path / "study")


@pytest.fixture(scope="session")
def warm_worker():
    """A warm worker of the tests' own process: `processes.stage` then costs the start of a bare Python."""
    if sys.platform != "linux":
        yield None
        return
    with mock.patch.dict(os.environ):
        warm.start_worker()
        yield warm.start_worker.process
        warm.start_worker.process.stdin.close()
        warm.start_worker.process.wait(10)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own that holds 256 kB. Needs root; skips without."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
