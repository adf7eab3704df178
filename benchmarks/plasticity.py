"""Measuring plasticity: all five components of ViT-Base, batch 64; one source against eleven targets; values."""

import copy
import functools

import timm
import torch

from benchmarks import plain
from benchmarks.harness import at_least, at_most, gpu, interleaved, not_measured, peak_mb, ratios, stated
from vit_plasticity import plasticity
from vit_plasticity.runtime.device import select_device
from vit_plasticity.vit.components import MEASURABLE

PAIRS, TARGETS = 64, 11


def measure():
    results = [values()]
    for threads in (1, 2):
        select_device("cpu", threads)
        results += one_target(f"{threads} thread{'s' * (threads > 1)}", PAIRS, repetitions=2)
    results += [memory(), many_targets("2 threads", pairs=4, repetitions=2)]
    if device := gpu():
        results += one_target("GPU", PAIRS, repetitions=10, device=device)
        results.append(many_targets("GPU", PAIRS, repetitions=3, device=device))
    else:
        results.append(not_measured(f"Plasticity on a GPU, {PAIRS} pairs, against plain", ""))
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


def one_target(where, pairs, repetitions, device="cpu"):
    """Each component alone, as jobs measure it, and the five together."""
    model, (source, target) = vit_base(device), images(pairs, 2, device)
    whole, results = [0.0] * repetitions, []
    plain_whole = [0.0] * repetitions
    for component in MEASURABLE:
        seconds = interleaved(
            repetitions,
            {
                "plain": functools.partial(plain.rates_of_change, model, source, target, component),
                "ours": functools.partial(plasticity.rates_of_change, model, source, target, component),
            },
            torch.device(device),
            warm_up=0 if device == "cpu" else 1,
        )
        results.append(stated(f"Plasticity of {component}, {where}", ratios(seconds, "plain", "ours"), "×"))
        plain_whole = [a + b for a, b in zip(plain_whole, seconds["plain"], strict=True)]
        whole = [a + b for a, b in zip(whole, seconds["ours"], strict=True)]
    together = ratios({"plain": plain_whole, "ours": whole}, "plain", "ours")
    note = f"{min(plain_whole):.1f} s plain, {min(whole):.1f} s ours"
    return [
        at_least(f"Plasticity, ViT-Base, {pairs} pairs, five components, {where}", 5, together, note=note),
        *results,
    ]


def many_targets(where, pairs, repetitions, device="cpu"):
    """One source sample and eleven targets, against eleven plain measurements."""
    model, (source, *targets) = vit_base(device), images(pairs, 1 + TARGETS, device)

    def plainly():
        for component in MEASURABLE:
            for target in targets:
                plain.rates_of_change(model, source, target, component)

    def ours():
        for component in MEASURABLE:
            plasticity.rates_of_change_to_each(model, source, targets, component)

    seconds = interleaved(repetitions, {"plain": plainly, "ours": ours}, torch.device(device), warm_up=0)
    what = f"Plasticity, one source against {TARGETS} targets of {pairs} pairs, five components, {where}"
    return at_least(what, 6, ratios(seconds, "plain", "ours"))


def memory():
    """Peak working memory over the components, each measurement in a process of its own."""
    peaks = {
        kind: max(peak_mb(prepare_measurement, kind, component) for component in ("mha", "fc1", "fc2"))
        for kind in ("plain", "ours")
    }
    note = f"the largest of mha, fc1, fc2: {peaks['plain']:.0f} MB plain, {peaks['ours']:.0f} MB ours"
    return at_least(f"Working memory of plasticity, {PAIRS} pairs", 50, [peaks["plain"] / peaks["ours"]], note=note)


def prepare_measurement(kind, component):
    device = gpu() or "cpu"
    model, (source, target) = vit_base(device), images(PAIRS, 2, device)
    function = plain.rates_of_change if kind == "plain" else plasticity.rates_of_change
    function(model, source[:1], target[:1], component)  # loads code, which is no working memory
    return functools.partial(function, model, source, target, component)


def values():
    """The largest relative error of a rate, against the plain definition in double precision."""
    model, (source, target) = vit_base(), images(2, 2)
    exact_model = copy.deepcopy(model).double()
    errors = []
    for component in MEASURABLE:
        exact = plain.rates_of_change(exact_model, source.double(), target.double(), component)
        rates = plasticity.rates_of_change(model, source, target, component)
        errors.append(((rates - exact) / exact).abs().max().item())
    return at_most("Relative error of a rate of change, against float64", 1e-5, [max(errors)], unit="")
