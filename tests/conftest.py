"""What the tests share; their helper modules lie in tests/support/."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from unittest import mock

import processes
import pytest

from vit_plasticity.runtime import client

TIME_LIMIT_S = 300
# A shell that runs the suite in the background lets it ignore SIGINT, and every process below it would do so too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _limited(item):
    """Fail a test that takes longer than its limit, so that a hang is a failure and not a suite without an end."""
    marker = item.get_closest_marker("time_limit")
    seconds = marker.args[0] if marker else TIME_LIMIT_S

    def stop(number, frame):
        pytest.fail(f"took more than {seconds} s; raise the limit with @pytest.mark.time_limit(seconds)")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with _limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with _limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    with _limited(item):
        return (yield)


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
        client.start_worker()
        yield client.start_worker.process
        client.start_worker.process.stdin.close()
        client.start_worker.process.wait(10)


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
