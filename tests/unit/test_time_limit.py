"""The suite's own guards: a hang is a failure, and interrupts reach processes though the suite itself ignores them."""

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANGS = """
import time, pytest

@pytest.fixture
def slow():
    time.sleep(60)

@pytest.mark.time_limit(0.2)
def test_that_hangs():
    time.sleep(60)

@pytest.mark.time_limit(0.2)
def test_whose_fixture_hangs(slow):
    pass

def test_that_does_not():
    time.sleep(0.3)
"""
INTERRUPTED = """
import signal, subprocess, sys

def test_child_can_be_interrupted():
    child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1)
    child.stdout.read(1)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == -signal.SIGINT
"""


def pytest_on(folder, text, **options):
    (folder / "test_it.py").write_text(text)
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder, folder]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, **options)


def test_hang_is_a_failure(tmp_path):
    done = pytest_on(tmp_path, HANGS)
    assert "1 failed, 1 passed, 1 error" in done.stdout, done.stdout
    assert done.stdout.count("took more than 0.2 s") >= 2


def test_interrupts_reach_children_of_a_suite_in_the_background(tmp_path):
    """As after ``nohup make test &`` in a script, where SIGINT is ignored from the start."""
    done = pytest_on(tmp_path, INTERRUPTED, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert done.returncode == 0, done.stdout
