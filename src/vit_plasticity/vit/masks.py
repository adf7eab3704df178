"""Masks: a component of which a given number of values per block trains, as a control for its size.

The other values of its tensors have no gradient, and `hold` keeps them from decaying. A mask is a pure function of the
block and of how many values it chooses from, drawn by a counter-based generator; a larger one contains a smaller one.
"""

import numpy as np
import torch

from vit_plasticity.runtime.cli import InputError


def add(model, blocks, size, component):
    """Let `size` values of each block train, in place. blocks: index → {name: Parameter}, in the model's order.

    Raises InputError where a block has fewer values.
    """
    model.masks = {}
    for index, parameters in blocks.items():
        total = sum(p.numel() for p in parameters.values())
        if size > total:
            raise InputError(f"component {component!r}: it has {total} values in block {index}; choose at most as many")
        chosen = torch.zeros(total, dtype=torch.bool)
        chosen[torch.from_numpy(_draw(index, total)[:size])] = True
        for (name, p), mask in zip(
            parameters.items(), chosen.split([p.numel() for p in parameters.values()]), strict=True
        ):
            model.masks[name] = _Mask(mask.view_as(p), p)


def _draw(block, n):
    """The numbers 0 to n − 1 in the order in which a block's values are chosen."""
    return np.argsort(np.random.Philox(key=block).random_raw(n), kind="stable")


class _Mask:
    def __init__(self, mask, parameter):
        self.mask, self.handle = mask, parameter.register_hook(self)

    def __call__(self, gradient):
        self.mask = self.mask.to(gradient.device)
        return gradient * self.mask


def remove(model):
    """Let masked tensors train as wholes again."""
    for mask in getattr(model, "masks", {}).values():
        mask.handle.remove()
    model.masks = {}


def hold(model, optimizer, values):
    """Keep what a mask leaves out at its values, a dict by name, whatever the optimizer does to it, such as decay."""
    parameters = {name: model.get_parameter(name) for name in getattr(model, "masks", {})}

    @torch.no_grad()
    def restore(*_):
        for name, parameter in parameters.items():
            mask = model.masks[name].mask.to(parameter.device)
            parameter.copy_(torch.where(mask, parameter, values[name].to(parameter.device)))

    if parameters:
        optimizer.register_step_post_hook(restore)


def n_trained(model):
    """How many values train: those of parameters that need gradients, less what masks leave out."""
    masks = getattr(model, "masks", {})
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    return sum(int(masks[name].mask.sum()) if name in masks else n for name, n in trained.items())
