"""The device that a stage computes on, what it can do, and how many threads may be used beside it."""

import os
import shutil
import sysconfig
from pathlib import Path

import threadpoolctl
import torch

from vit_plasticity.runtime import gpu_lease
from vit_plasticity.runtime.cli import InputError, MachineError


def select_device(name, threads, *, precision="fp32", compile=False):
    """The torch device of that name ("auto": the first GPU, or the CPU where there is none), with `threads` CPU threads
    for torch and for the linear algebra of NumPy, SciPy and scikit-learn.

    From then on float32 products keep all their digits: TF32, which GPUs would use for convolutions, has three.
    precision, compile: settings that the device must be able to keep. Raises InputError for a device that this machine
    lacks, and for one that cannot; MachineError where a GPU was given to this job but torch finds none.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    # Environment variables would come too late in a process that has loaded these libraries for another job.
    threadpoolctl.threadpool_limits(threads)
    torch.set_num_threads(threads)
    # The C library learns from the largest piece that it has freed, up to 32 MB, what to keep rather than give back:
    # fetching and clearing the same memory at every step would cost up to a fifth of the step.
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
    if name in ("auto", "cuda"):
        gpu_lease.take()  # where there are several, one that no other job uses
    if name == "auto":
        name = "cuda" if _finds_gpu() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).add_(1).item()  # the first kernel that runs there
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {name}: {_first_line(error)}; choose auto, cpu, or a GPU that is there{_kernels(name)}"
        ) from error
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError(
            f"precision: got bf16, which {device_name(device)} has no units for; choose fp32, or a GPU of compute "
            "capability 8.0 or higher"
        )
    if compile:
        _check_compiler(device)
    return device


def _finds_gpu():
    """Whether torch finds a GPU. Raises MachineError where it finds none though this job was given one."""
    if torch.cuda.is_available():
        return True
    if given := gpu_lease.given():
        try:
            torch.cuda.init()
            reason = "no GPU is there"
        except (RuntimeError, AssertionError) as error:
            reason = _first_line(error)
        raise MachineError(
            f"a GPU was given to this job ({given}), but torch {torch.__version__} finds none on "
            f"{os.uname().nodename}: {reason}. Mend the node or leave it out, or compute on the CPU with --device cpu "
            "(VIT_PLASTICITY_DEVICE=cpu for all jobs)"
        )
    return False


def _first_line(error):
    return str(error).strip().partition("\n")[0]


def _kernels(name):
    """What is to be done where torch was built without kernels for a GPU that is there; else nothing."""
    if not name.startswith("cuda") or not torch.cuda.is_available():
        return ""
    major, minor = torch.cuda.get_device_capability(name)
    built_for = torch.cuda.get_arch_list()
    if has_kernels((major, minor), built_for):
        return ""
    return (
        f". It has compute capability {major}.{minor}, and this torch is built for {', '.join(built_for)}: install a "
        "build of torch for an older CUDA, or choose a newer GPU"
    )


def has_kernels(capability, built_for):
    """Whether a torch built for these architectures ("sm_80", "compute_90") runs on a GPU of a capability (8, 6)."""
    for architecture in built_for:
        kind, _, digits = architecture.partition("_")
        digits = digits.rstrip("abcdefghijklmnopqrstuvwxyz")
        version = int(digits[:-1]), int(digits[-1])
        if version <= capability and (kind == "compute" or version[0] == capability[0]):
            return True
    return False


def _check_compiler(device):
    """Raise InputError where torch.compile would fail at the first step."""
    variable, usual = ("CC", ("gcc", "clang", "cc")) if device.type == "cuda" else ("CXX", ("g++", "clang++"))
    compilers = [os.environ[variable]] if os.environ.get(variable) else usual
    header = Path(sysconfig.get_path("include"), "Python.h")
    missing = [] if any(map(shutil.which, compilers)) else [f"a compiler ({' or '.join(compilers)})"]
    missing += [] if header.exists() else [f"Python's headers ({header})"]
    if missing:
        raise InputError(
            f"compile: got true, but this machine lacks {' and '.join(missing)}, which torch.compile needs; install "
            "them, or choose compile: false"
        )


def device_name(device):
    """The name of a device for provenance: the GPU's product name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
