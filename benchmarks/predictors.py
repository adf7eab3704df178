"""Predictors in situ and of gradients: against the passes through the model that they need at least, one thread.

What they need: in situ one forward pass of both images of every pair, for gradients one forward and backward pass of
every training image, as the stage `measure` does them, on images that are ready. What they take: `in_situ.changes`, and
`gradients.measure` with its own preparing of images. Of ViT-Base three blocks are measured, which are alike.
"""

import numpy as np
import timm
import torch
from torch.nn import functional

from benchmarks.data import demo_model, small_split
from benchmarks.harness import at_most, interleaved, ratios
from vit_plasticity import vit
from vit_plasticity.predictors import gradients, in_situ, points
from vit_plasticity.runtime.device import select_device
from vit_plasticity.vit import components

SIZES = {
    "the demo study's model": (demo_model, 256, 5),
    "three blocks of ViT-Base": (lambda: timm.create_model("vit_base_patch16_224", depth=3, num_classes=10), 32, 2),
}
"""Name → how to make the model, pairs and training images, repetitions."""


def measure():
    select_device("cpu", threads=1)
    return [result for size in SIZES for result in (of_pairs(size), of_gradients(size))]


def of_pairs(size):
    make, n, repetitions = SIZES[size]
    model, split = _model(make), small_split()
    source, target = (points.images(model, split, np.arange(start, start + n)) for start in (0, n))

    @torch.inference_mode()
    def passes():
        for x, y in zip(*(images.split(points.at_once(model)) for images in (source, target)), strict=True):
            vit.family(model).after_blocks(model, vit.embed(model, torch.cat([x, y])))

    functions = {"ours": lambda: in_situ.changes(model, source, target), "passes": passes}
    return _result(
        f"Predictors in situ, {size}, {n} pairs: their time over that of forward passes", functions, repetitions
    )


def of_gradients(size):
    make, n, repetitions = SIZES[size]
    model, split = _model(make), small_split()
    family, head = vit.family(model), (torch.randn(10, vit.family(model).width(model)), torch.zeros(10))
    chosen = [components.parse(name) for name in components.MEASURABLE]
    names = {name for component in chosen for name in component.parameters(model)}
    images, labels = points.images(model, split, np.arange(n)), torch.tensor(np.asarray(split.labels)[:n])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)

    def passes():
        for x, wanted in zip(*(given.split(points.at_once(model)) for given in (images, labels)), strict=True):
            logits = functional.linear(family.pre_logits(model, x), *head)
            functional.cross_entropy(logits, wanted, reduction="sum").backward()
        model.zero_grad()

    functions = {"ours": lambda: gradients.measure(model, head, split, [np.arange(n)], names), "passes": passes}
    return _result(
        f"Predictors of gradients, {size}, {n} images: their time over that of forward and backward passes",
        functions, repetitions,
    )  # fmt: skip


def _model(make):
    torch.manual_seed(0)
    model = make().eval()
    size = model.patch_embed.img_size[0]
    model.pretrained_cfg |= {"input_size": (3, size, size), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
    model.pretrained_cfg |= {"interpolation": "bilinear"}
    return model


def _result(what, functions, repetitions):
    seconds = interleaved(repetitions, functions, threads=1)
    note = ", ".join(f"{min(values):.3g} s {name}" for name, values in seconds.items())
    return at_most(what, 1.15, ratios(seconds, "ours", "passes"), "×", note=note)
