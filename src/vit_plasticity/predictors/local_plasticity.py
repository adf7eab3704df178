"""Local plasticity: how far small changes of a component's input move its output, in situ.

(E_x ‖J_f(x)‖_F² / dim x)^½ over training images, with J_f the Jacobian at what f receives and dim x the number of its
inputs. Hutchinson's estimator: ‖J‖_F² = E_v ‖J v‖², v standard normal, by Jacobian-vector products. A linear layer has
the closed form ‖W‖_F / √D. Source of the estimator: Hoffman, Roberts and Yaida 2019, arXiv 1908.02729.
"""

import warnings

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vit_plasticity import vit
from vit_plasticity.predictors import points, predictor
from vit_plasticity.predictors.task import measured
from vit_plasticity.runtime.intervals import image_interval

BATCH = 16
"""Images at a time."""


@predictor
def local_plasticity(task):
    """Root of the mean over images, of every block and of all; intervals resample images."""
    names = sorted({base for _, base, _ in measured(task)})
    squares = {name: [] for name in names}
    for start in range(0, len(task.training_images), BATCH):
        images = points.images(task.model, task.dataset.split("train"), task.training_images[start : start + BATCH])
        for name, found in squared_gains(task.model, images, names, task.settings.probes, task.settings.seed + start):
            squares[name].append(found.cpu().numpy())
    for component, base, blocks in measured(task):
        values = np.concatenate(squares[base], axis=1)[blocks]  # (blocks, images)
        image = np.arange(values.shape[1])
        series = np.concatenate([values.mean(axis=0)[None], values])
        found = np.sqrt(np.maximum(image_interval(series, image, image, 0.95), 0))  # (3, 1 + blocks)
        for block, (mean, low, high) in zip([None, *blocks], found.T, strict=True):
            row = {"component": component.name, "block": block, "value": mean, "ci_low": low, "ci_high": high}
            yield row | {"n": len(image)}


@torch.no_grad()
def squared_gains(model, images, components, probes, seed):
    """(component, ‖J_f‖_F² / dim x of every block and image, float64 (n_blocks, N)), by `probes` random directions."""
    family = vit.family(model)
    generator = torch.Generator(images.device).manual_seed(seed)
    found = {name: [] for name in components}
    for block, inputs in zip(family.blocks(model), family.inputs(model, vit.embed(model, images)), strict=True):
        for name in components:
            x = inputs[name]
            total = 0.0
            for _ in range(probes):
                v = torch.randn(x.shape, generator=generator, device=x.device)
                change = _directional(lambda t, b=block, n=name: family.apply(model, b, n, t), x, v)
                total = total + change.square().sum(dim=(1, 2), dtype=torch.float64)
            found[name].append(total / probes / x[0].numel())
    return [(name, torch.stack(values)) for name, values in found.items()]


def _directional(f, x, v):
    """J_f(x) v."""
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():  # the only kernel that can be differentiated forwards
        # Of torch's own decompositions, which it compiles at the first use.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        return torch.func.jvp(f, (x,), (v,))[1]
