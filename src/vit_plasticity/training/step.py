"""One optimisation step and one evaluation, as fine-tuning and pre-training share them.

Dimensions: B batch, S image size in pixels, K classes.
"""

import math
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional

from vit_plasticity import vit
from vit_plasticity.data import batches

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


def make_optimizer(parameters, name, lr, *, momentum=0.9, weight_decay=0.0):
    """SGD with momentum or AdamW over a list of parameters, all updated by one fused kernel."""
    parameters = list(parameters)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    raise ValueError(f"unknown optimizer {name!r}; choose from sgd, adamw")


def learning_rate(step, steps, warmup_steps, peak, warmup_from=1):
    """Learning rate of step `step` (from 0): a linear warm-up to `peak`, then half a cosine, which would be 0 one step
    after the last. warmup_from: how many of its steps the warm-up has behind it at the first, 0 or 1."""
    if step < warmup_steps:
        return peak * (step + warmup_from) / warmup_steps
    return peak * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps))) / 2


def step(model, optimizer, images, labels, *, lr, clip_norm, accumulation=1, precision="fp32", recompute=False):
    """One update on a batch: images (B, 3, S, S), labels (B,). Returns the loss and the gradient norm before clipping,
    both as tensors on the device, so that a GPU is not made to wait.

    accumulation: the batch is worked through in that many parts; the gradient is that of the mean loss over the batch.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for part, part_labels in zip(images.chunk(accumulation), labels.chunk(accumulation), strict=True):
        with autocast(labels.device, precision):
            logits = vit.logits(model, part, recompute=recompute)
        loss = functional.cross_entropy(logits.float(), part_labels)
        if accumulation > 1:
            loss = loss * (len(part_labels) / len(labels))
        loss.backward()
        losses.append(loss.detach())
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # On a CPU a loop over the parameters is faster than lists of them.
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm, foreach=labels.is_cuda)
    optimizer.step()
    return sum(losses), norm


def component_norm(parameters, norm, clip_norm):
    """The norm of the gradients of some of the parameters before `step` clipped them: a tensor, NaN where there are
    none. norm: that of all, as `step` returned it."""
    if not parameters:
        return torch.full_like(norm, torch.nan)
    clipped = torch.nn.utils.get_total_norm([p.grad for p in parameters], foreach=norm.is_cuda)
    return clipped * torch.clamp((norm + 1e-6) / clip_norm, min=1)  # the inverse of what clip_grad_norm_ multiplies by


class Evaluation(NamedTuple):
    """What an evaluation gives: mean cross-entropy, accuracy (correct / total), and balanced accuracy (the mean over
    the classes that occur of the share of their images that are found); accuracies lie in [0, 1]."""

    loss: float
    accuracy: float
    balanced_accuracy: float


def evaluate(model, images, labels, preprocessing, *, batch_size=256, precision="fp32"):
    """The `Evaluation` of images, given as to `batches.evaluation`.

    labels: (n,) whole numbers. The model's training mode is left as it was.
    """
    # Blocks that are compiled would be so again for every size of a batch.
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        return _evaluate(model, images, labels, preprocessing, batch_size, precision)


def _evaluate(model, images, labels, preprocessing, batch_size, precision):
    device, training = next(model.parameters()).device, model.training
    labels = (labels if torch.is_tensor(labels) else torch.tensor(labels)).to(device, non_blocking=True)
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros_like(labels, dtype=torch.bool)
    found = batches.evaluation(images, preprocessing, batch_size=batch_size, device=device)
    for batch, target, hit in zip(found, labels.split(batch_size), correct.split(batch_size), strict=True):
        with autocast(device, precision):
            logits = vit.logits(model, batch)
        loss += functional.cross_entropy(logits.double(), target, reduction="sum")
        hit.copy_(logits.argmax(dim=1) == target)
    model.train(training)
    images_of, found_of = labels.bincount(), labels[correct].bincount(minlength=int(labels.max()) + 1)
    shares = (found_of.double() / images_of)[images_of > 0]
    return Evaluation(loss.item() / len(labels), correct.sum().item() / len(labels), shares.mean().item())


def reset_peak_memory(device):
    """Let `peak_memory_mb` count from now on. On a CPU that needs Linux, and is left out elsewhere."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mb(device):
    """Peak memory in MB (10⁶ bytes) since its reset: what torch holds on the GPU, or all of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii")
        if found := re.search(r"^VmHWM:\s+(\d+)", status, re.MULTILINE):
            return int(found[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes, or KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def autocast(device, precision):
    """Autocast to the precision of a config ("fp32": none, "bf16")."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
