"""One GPU for one process, on a machine that has several and no scheduler to hand them out.

Each GPU has a lock file. Whoever holds the lock (flock) may use the GPU, and the lock goes with its process, however
that ends. SLURM, or a person who sets ``CUDA_VISIBLE_DEVICES`` to one device, has chosen already: nothing is leased.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import takewhile
from pathlib import Path

from vit_plasticity.runtime import locks

SLURM_GPUS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")

_held = []  # locks, so that they last as long as the process


def visible_devices():
    """The GPUs that CUDA would show this process, as it numbers them: ``["0", "1"]``."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        # As CUDA reads it, up to the first that names none: "-1" and SLURM's "NoDevFiles" leave no GPU.
        devices = (device.strip() for device in chosen.split(","))
        return list(takewhile(re.compile(r"\d+|(GPU|MIG)-\S+").fullmatch, devices))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(n) for n in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def given():
    """How this job was given a GPU, by a scheduler or by a person ("CUDA_VISIBLE_DEVICES=0"), or None."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']}" if visible_devices() else None
    return next((f"{name}={os.environ[name]}" for name in SLURM_GPUS if os.environ.get(name)), None)


def count():
    """How many GPUs there are to hand out. Raises RuntimeError where there is none."""
    if not (devices := visible_devices()):
        raise RuntimeError(
            "no GPU is visible (nvidia-smi -L lists none, or CUDA_VISIBLE_DEVICES is empty); "
            "leave out --profile to compute on the CPU"
        )
    return len(devices)


def take(folder=None, poll_s=1.0):
    """Where several GPUs are visible, wait for a free one and make it the only visible one, until this process ends.

    To be called before CUDA starts. folder: of the lock files, each user's own by default.
    Returns the device taken, or None where there was nothing to choose.
    """
    devices = visible_devices()
    if len(devices) < 2:
        return None
    folder = Path(folder or Path(tempfile.gettempdir(), f"vit-plasticity-gpus-{os.getuid()}"))
    folder.mkdir(mode=0o700, exist_ok=True)
    waiting = False
    while not (device := next((d for d in devices if _lock(folder / d)), None)):
        if not waiting:
            print(f"all GPUs ({', '.join(devices)}) are in use; waiting for one", file=sys.stderr, flush=True)
            waiting = True
        time.sleep(poll_s)
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    return device


def _lock(path):
    if lock := locks.take(path):
        _held.append(lock)
    return lock
