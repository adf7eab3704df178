"""The device that a stage computes on, and how many threads it may use."""

import os
import sys

import threadpoolctl
import torch

from vit_plasticity.runtime import gpu_lease
from vit_plasticity.runtime.cli import InputError


def select_device(name, threads):
    """The torch device of that name ("auto": the first GPU, or the CPU where there is none), with `threads` CPU threads
    for torch and for the linear algebra of NumPy, SciPy and scikit-learn.

    From then on float32 products keep all their digits: TF32, which GPUs would use for convolutions, has three.
    Raises InputError for a device that this machine lacks.
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
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and os.environ.get("CUDA_VISIBLE_DEVICES"):
            print("a GPU was given (CUDA_VISIBLE_DEVICES), but torch finds none: computing on the CPU", file=sys.stderr)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {name}: {str(error).splitlines()[0]}; choose auto, cpu, or a GPU that is there"
        ) from error
    return device


def device_name(device):
    """The name of a device for provenance: the GPU's product name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
