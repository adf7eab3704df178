"""Several processes on a machine with several GPUs: each gets one of its own, and a dead one gives its GPU back."""

import os
import signal
import subprocess
import sys

import pytest

from vit_plasticity.runtime import gpu_lease

HOLDER = """\
import os, sys, time
from vit_plasticity.runtime import gpu_lease
gpu_lease.take(sys.argv[1], poll_s=0.02)
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    """Start a process that takes one of the devices "0" and "1", and keeps it until it is killed."""
    started = []

    def hold():
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0,1"}
        command = [sys.executable, "-c", HOLDER, str(tmp_path)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
        return started[-1]

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_take_two_devices_and_the_third_gets_that_of_a_killed_one(hold):
    first, second = hold(), hold()
    devices = [process.stdout.readline().strip() for process in (first, second)]
    assert sorted(devices) == ["0", "1"]

    third = hold()
    assert "all GPUs (0, 1) are in use" in third.stderr.readline()
    second.send_signal(signal.SIGKILL)
    assert third.stdout.readline().strip() == devices[1]


@pytest.mark.parametrize("chosen", ["", "1", "GPU-8f2d"])
def test_one_device_or_none_leaves_nothing_to_choose(monkeypatch, tmp_path, chosen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpu_lease.take(tmp_path) is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("listing", "devices"),
    [("echo GPU 0: A; echo '  MIG 1g Device 0:'; echo GPU 1: A", ["0", "1"]), ("exit 9", [])],
)
def test_devices_are_counted_by_nvidia_smi(monkeypatch, tmp_path, listing, devices):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{listing}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_lease.visible_devices() == devices


def test_a_machine_without_the_driver_has_no_device(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_lease.visible_devices() == []
    with pytest.raises(RuntimeError, match="no GPU is visible"):
        gpu_lease.count()
