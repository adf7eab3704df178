"""Measuring plasticity: all five components of ViT-Base, one target and eleven; share of the machine's peak; memory.

The study measures one component in one job, so ours is five calls, and plain is one pass for all five. Weights are
random. For eleven targets plain is called once a target; since those calls do the same on other images, one is timed
and counted eleven times.
"""

import copy
import functools

import timm
import torch

from benchmarks import plain
from benchmarks.harness import (
    at_least,
    at_most,
    gpu,
    interleaved,
    matrix_product,
    not_measured,
    peak_mb,
    ratios,
    share_of_peak,
    stated,
)
from vit_plasticity import plasticity
from vit_plasticity.runtime.device import select_device
from vit_plasticity.vit.components import MEASURABLE

TARGETS = 11
DEPTH, LENGTH, WIDTH = 12, 197, 768
"""ViT-Base: blocks, tokens, embedding width."""


def measure():
    results = [values(), memory()]
    for pairs in (16, 64):
        for threads, where in ((1, "1 thread"), (2, "2 threads")):
            select_device("cpu", threads)
            results += against_plain(where, pairs, repetitions=2 if pairs == 16 else 1, threads=threads)
    select_device("cpu", 1)
    results.append(fused_attention())
    if device := gpu():
        results += against_plain("GPU", 64, repetitions=5, device=device)
    else:
        results.append(not_measured("Plasticity, one target, 64 pairs, GPU", ""))
        results.append(not_measured("Plasticity, eleven targets, 64 pairs, GPU", ""))
    return results


def vit_base(device="cpu"):
    """ViT-Base with random weights, and LayerNorm gains that differ as those of a trained one do."""
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224").to(device).eval()
    for block in model.blocks:
        for norm in (block.norm1, block.norm2):
            torch.nn.init.normal_(norm.weight, 1.0, 0.2)
    return model


def images(n, samples, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, 224, 224, generator=generator).to(device) for _ in range(samples)]


def against_plain(where, pairs, repetitions, threads=None, device="cpu"):
    """One target, and eleven: against plain, and the shares of the peak that ours and plain reach."""
    model, (source, *targets) = vit_base(device), images(pairs, 1 + TARGETS, device)
    functions = {"peak": matrix_product(device), "plain": lambda: plain.rates_of_change(model, source, targets[0])}
    for component in MEASURABLE:
        measured = functools.partial(plasticity.rates_of_change_to_each, model, source, component=component)
        functions[component] = functools.partial(measured, targets[:1])
        functions[f"{component} to each"] = functools.partial(measured, targets)
    seconds = interleaved(repetitions, functions, torch.device(device), warm_up=int(device != "cpu"), threads=threads)
    seconds["ours"] = _sums(seconds[component] for component in MEASURABLE)
    of_each = ", ".join(f"{min(seconds[component]):.2f} s {component}" for component in MEASURABLE)
    operations = plain_products(pairs) / attention_products(pairs)
    what = f"{pairs} pairs, {where}"
    results = [
        at_least(
            f"Plasticity, one target, {what}", 4, ratios(seconds, "plain", "ours"),
            note=f"{min(seconds['plain']):.1f} s plain, {min(seconds['ours']):.1f} s ours: {of_each}; matrix products "
            f"of plain over those of attention alone: {operations:.2f} × the operations",
        ),
        at_least(
            f"Attention, share of the peak of matrix products, {what}", 85,
            share_of_peak(attention_products(pairs), seconds["mha"], seconds["peak"]), "%",
        ),
        stated(
            f"Plain, share of the peak of matrix products, {what}",
            share_of_peak(plain_products(pairs), seconds["plain"], seconds["peak"]), "%",
        ),
    ]  # fmt: skip
    what = f"Plasticity, eleven targets, {what}"
    seconds["plain to each"] = [TARGETS * s for s in seconds["plain"]]
    seconds["ours to each"] = _sums(seconds[f"{component} to each"] for component in MEASURABLE)
    note = f"{min(seconds['plain to each']):.0f} s plain, {min(seconds['ours to each']):.1f} s ours"
    return [*results, at_least(what, 6, ratios(seconds, "plain to each", "ours to each"), note=note)]


def fused_attention(images=4, heads=12):
    """The share of the peak that torch's kernel for attention between tokens reaches, which ours calls."""
    q, k, v = torch.randn(3, images, heads, LENGTH, WIDTH // heads)
    functions = {
        "peak": matrix_product(),
        "kernel": lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v),
    }
    seconds = interleaved(20, functions, threads=1)
    operations = 2 * images * 2 * LENGTH**2 * WIDTH
    what = "Attention between tokens, torch's own kernel alone, share of the peak of matrix products, 1 thread"
    return stated(what, share_of_peak(operations, seconds["kernel"], seconds["peak"]), "%")


def _sums(lists):
    return [sum(values) for values in zip(*lists, strict=True)]


def plain_products(pairs):
    """Operations of the matrix products of plain."""
    per_block = LENGTH * WIDTH * (3 + 1 + 4 + 4) * WIDTH + 2 * LENGTH**2 * WIDTH
    return 2 * 2 * pairs * (DEPTH * per_block + (LENGTH - 1) * WIDTH * 3 * 16**2)


def attention_products(pairs):
    """Operations of the matrix products of our measurement of attention: of the output, the difference alone is
    projected."""
    per_image = DEPTH * (LENGTH * WIDTH * 3 * WIDTH + 2 * LENGTH**2 * WIDTH) + (LENGTH - 1) * WIDTH * 3 * 16**2
    return 2 * pairs * (2 * per_image + DEPTH * LENGTH * WIDTH**2)


def memory(pairs=plain.AT_ONCE):
    """Peak working memory, each measurement in a process of its own."""
    plainly = peak_mb(prepare_measurement, "plain", pairs)
    ours = max(peak_mb(prepare_measurement, component, pairs) for component in ("mha", "fc1", "fc2"))
    note = f"{plainly:.0f} MB plain, the largest of mha, fc1, fc2 {ours:.0f} MB"
    return at_least(f"Working memory of plasticity, {pairs} pairs at once", 50, [plainly / ours], note=note)


def prepare_measurement(kind, pairs):
    device = gpu() or "cpu"
    model, (source, target) = vit_base(device=device), images(pairs, 2, device)
    if kind == "plain":
        function = functools.partial(plain.rates_of_change, model)
    else:
        function = functools.partial(plasticity.rates_of_change, model, component=kind)
    function(source[:1], target[:1])  # loads code, which is no working memory
    return functools.partial(function, source, target)


def values():
    """The largest relative error of a rate, against plain in double precision; plain's own in single is a note."""
    model, (source, target) = vit_base(), images(2, 2)
    exact = plain.rates_of_change(copy.deepcopy(model).double(), source.double(), target.double())
    plainly = plain.rates_of_change(model, source, target)
    ours = {component: plasticity.rates_of_change(model, source, target, component) for component in MEASURABLE}
    errors, of_plain = (
        max(((rates[one] - exact[one]) / exact[one]).abs().max().item() for one in MEASURABLE)
        for rates in (ours, plainly)
    )
    note = f"{of_plain:.1e} of plain"
    return at_most("Relative error of a rate of change, against float64", 1e-5, [errors], unit="", note=note)
