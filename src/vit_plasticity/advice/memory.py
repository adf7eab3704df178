"""Estimated memory for fine-tuning a component: what one step keeps, counted on a small batch and scaled."""

import torch
from torch.nn import functional

from vit_plasticity import vit

_SAMPLE = 2  # images of the batch that is counted
_FLOAT = 4  # bytes
STATES = {"sgd": 1, "adamw": 2}
"""Optimizer → values that it keeps per trained one."""


def estimate(model, component, batch_size, optimizer="sgd"):
    """Bytes that a training step of a component holds: weights, gradients, optimizer, and what backward needs of the
    forward pass for `batch_size` images, in fp32. The libraries' own memory comes on top.

    The model's head must have its classes; which parameters train is left as it was.
    """
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        vit.train_only(model, component)
        kept = _kept_for_backward(model)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])
    weights = sum(p.numel() for p in model.parameters())
    return _FLOAT * (weights + trained * (1 + STATES[optimizer])) + kept * batch_size // _SAMPLE


def _kept_for_backward(model):
    """Bytes that autograd keeps of a forward pass over the sample, each storage once, without the parameters."""
    size = vit.preprocessing(model).size
    device = next(model.parameters()).device
    images = torch.zeros(_SAMPLE, 3, size, size, device=device)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = vit.logits(model, images)
        loss = functional.cross_entropy(logits, torch.zeros(_SAMPLE, dtype=torch.int64, device=device))
    del loss
    return sum(kept.values())
