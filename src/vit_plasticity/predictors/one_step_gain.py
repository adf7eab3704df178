"""The gain of one step: by how much one gradient step on a component alone lowers the loss on validation images.

The step goes along the gradient of the mean loss over training images, with a fitted head that stays as it is. Five
lengths are tried, in shares of the length of the component's own parameters, and the best one counts.
"""

import torch

from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.fitted_head import held_out_loss
from vit_plasticity.predictors.task import of_weights

STEPS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Lengths of the step, ‖Δθ‖ / ‖θ‖."""


@predictor
def one_step_gain(task):
    """Largest decrease of the held-out loss, in nats; below zero where every step raises it."""
    images, before = task.held_out
    split = task.dataset.split("val")
    for component in task.components:
        losses = [held_out_loss(task.model, task.head, split, images) for _ in steps(task, component)]
        value = before - min(losses) if losses else None
        yield {"component": component.name, "block": None, "value": value, "n": len(images)}


@torch.no_grad()
def steps(task, component):
    """Take each step in turn, yielding its length; after that the model is as it was. None without a gradient."""
    moved = component.parameters(task.model) if of_weights(component) else {}
    size = sum(task.gradients[name].square_of_values for name in moved) ** 0.5
    length = sum(task.gradients[name].mean.square().sum(dtype=torch.float64).item() for name in moved) ** 0.5
    if not length:
        return
    kept = {name: parameter.clone() for name, parameter in moved.items()}
    try:
        for share in STEPS:
            for name, parameter in moved.items():
                parameter.copy_(kept[name] - share * size / length * task.gradients[name].mean)
            yield share
    finally:
        for name, parameter in moved.items():
            parameter.copy_(kept[name])
