"""Gradients of the training loss with a fitted head: one pass over some training images for all predictors.

The loss is the cross-entropy. Norms of the gradient of each single image come from the same pass: what a Linear layer
received and the gradient of what it gave are enough, since ‖Σ_l g_l x_lᵀ‖² = Σ_lm (x_l·x_m) (g_l·g_m).
Dimensions: B images, L tokens, D inputs and E outputs of a layer, K classes.
"""

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vit_plasticity import vit
from vit_plasticity.predictors import points


class Gradient(NamedTuple):
    """What is known of one parameter θ: its gradient g of the mean loss over all images; squared norms of the gradients
    of each batch's mean loss; the mean over images of the squared norm of one image's gradient; ‖θ‖²; Σ|g θ|."""

    mean: torch.Tensor
    squares_of_batches: np.ndarray
    square_of_images: float
    square_of_values: float
    saliency: float


def batches_of(n, settings):
    """Positions of the images of each batch, drawn at random from n without repetition: a list of arrays.

    settings: batches, batch_size, seed. All images are used where there are fewer than asked for.
    """
    order = np.random.default_rng([settings.seed, 3]).permutation(n)[: settings.batches * settings.batch_size]
    return np.array_split(order, -(-len(order) // settings.batch_size))


@torch.enable_grad()
def measure(model, head, split, batches, names):
    """The Gradient of each named parameter: {name: Gradient}.

    head: weight (K, D) and bias (K,) that turn what the model's head reads into logits. batches: positions in `split`.
    """
    part = points.at_once(model)
    with _training_only(model, names) as trained:
        totals = {name: torch.zeros_like(parameter) for name, parameter in trained.items()}
        squares = {name: [] for name in trained}
        of_images = {name: 0.0 for name in trained}
        for batch in batches:
            for start in range(0, len(batch), part):
                some = batch[start : start + part]
                images = points.images(model, split, some)
                labels = torch.tensor(np.asarray(split.labels)[some], device=images.device)
                for name, norms in _backward(model, head, images, labels, trained).items():
                    of_images[name] += norms.sum().item()
            for name, parameter in trained.items():
                if parameter.grad is not None:
                    totals[name] += parameter.grad
                    squares[name].append(_square(parameter.grad) / len(batch) ** 2)
                    parameter.grad = None
                else:
                    squares[name].append(0.0)
        n = sum(map(len, batches))
        found = {}
        for name, parameter in trained.items():
            mean, values = totals[name] / n, parameter.detach()
            saliency = (mean * values).abs().sum(dtype=torch.float64).item()
            found[name] = Gradient(mean, np.array(squares[name]), of_images[name] / n, _square(values), saliency)
        return found


@contextmanager
def _training_only(model, names):
    """Name → Parameter of those named, which alone have gradients within; what had them before has them again."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    trained = {name: parameter for name, parameter in model.named_parameters() if name in names}
    for parameter in before:
        parameter.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    try:
        yield trained
    finally:
        for parameter, wanted in before.items():
            parameter.requires_grad_(wanted)
            parameter.grad = None


def _backward(model, head, images, labels, trained):
    """Add the gradient of the summed loss to that of every trained parameter; return the squared norm of each image's
    own: {name: (B,) float64}."""
    names = {id(parameter): name for name, parameter in trained.items()}
    owners = {
        module: own
        for module in model.modules()
        if (own := {key: names[id(p)] for key, p in module.named_parameters(recurse=False) if id(p) in names})
    }
    family, calls, handles, found = vit.family(model), {}, [], {}
    embedded = _embedding_names(model, names)

    def note(module, received, named, gave):
        if not received:  # of what reads no tokens, such as a bias by position, see `_one_by_one`
            return
        call = [received[0].detach(), None, named]
        calls.setdefault(module, []).append(call)

        def arrived(gradient):
            call[1] = gradient
            if (type(module) is nn.Linear or isinstance(module, nn.LayerNorm)) and len(calls[module]) == 1:
                # At once, so that no gradient is kept until the pass ends: its memory serves the next layer.
                norms = _of_module(module, *call, owners[module])
                found.update({owners[module][key]: values for key, values in norms.items()})
                call[:2] = None, None

        gave.register_hook(arrived)

    def note_tokens(block, received):
        calls["tokens"] = [[images, None]]
        if received[0].requires_grad:
            received[0].register_hook(lambda gradient: calls["tokens"][0].__setitem__(1, gradient))

    for module, own in owners.items():
        if not embedded.keys() & own.values():
            handles.append(module.register_forward_hook(note, with_kwargs=True))
    handles.append(family.blocks(model)[0].register_forward_pre_hook(note_tokens))
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            logits = functional.linear(family.pre_logits(model, images), *head)
            functional.cross_entropy(logits, labels, reduction="sum").backward()
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        for module, own in owners.items():
            if len(call := calls.get(module, [])) == 1 and call[0][1] is not None:
                found |= {own[key]: norms for key, norms in _of_module(module, *call[0], own).items()}
    if embedded and calls["tokens"][0][1] is not None:
        found |= _of_function(lambda one: family.embed(model, one), *calls["tokens"][0], embedded)
    missing = {name: trained[name] for name in trained if name not in found and trained[name].grad is not None}
    return found | (_one_by_one(model, head, images, labels, missing) if missing else {})


def _embedding_names(model, names):
    """Name → Parameter of the trained ones of the embedding."""
    parts = vit.family(model).embedding(model)
    parameters = [p for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    return {names[id(p)]: p for p in parameters if id(p) in names}


def _of_module(module, x, gradient, named, own):
    """Squared norm of each image's gradient, {key: (B,)}, of the own parameters of a module that received x, and
    further arguments by name."""
    if type(module) is nn.Linear:
        x, gradient = (tokens.reshape(len(tokens), -1, tokens.shape[-1]) for tokens in (x, gradient))
        of_bias = _squares(gradient.sum(dim=1)) if "bias" in own else None
        return {key: _of_weight(x, gradient) if key == "weight" else of_bias for key in own}
    if isinstance(module, nn.LayerNorm):
        normalised = functional.layer_norm(x, module.normalized_shape, eps=module.eps)
        factors = {"weight": gradient * normalised, "bias": gradient}
        return {key: _squares(factors[key].flatten(1, -2).sum(dim=1)) for key in own}
    parameters = {key: module.get_parameter(key) for key in own}
    return _of_function(lambda one: module(one, **named), x, gradient, parameters)


def _of_weight(x, gradient):
    """‖gᵀx‖² of each image: x (B, L, D), gradient (B, L, E) → (B,), by whichever product is cheaper."""
    length, inputs, outputs = x.shape[1], x.shape[2], gradient.shape[2]
    if length * (inputs + outputs) < inputs * outputs:
        return ((x @ x.mT) * (gradient @ gradient.mT)).sum(dim=2).double().sum(dim=1)
    return torch.stack([_squares((g.T @ one)[None])[0] for one, g in zip(x, gradient, strict=True)])


def _of_function(function, x, gradient, parameters):
    """Squared norm of each image's gradient, {key: (B,)}, image by image: x, gradient (B, …) → {key: (B,)}."""
    found = {key: [] for key in parameters}
    with torch.enable_grad():
        for one, of_one in zip(x.split(1), gradient.split(1), strict=True):
            gradients = torch.autograd.grad(function(one), list(parameters.values()), of_one, allow_unused=True)
            for key, value in zip(parameters, gradients, strict=True):
                found[key].append(0.0 if value is None else _square(value))
    return {key: torch.tensor(values, dtype=torch.float64) for key, values in found.items()}


def _one_by_one(model, head, images, labels, parameters):
    """As `_backward` returns, by a pass for every image: for parameters that no module used by a call of its own."""
    found = {name: [] for name in parameters}
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        logits = functional.linear(vit.family(model).pre_logits(model, image), *head)
        loss = functional.cross_entropy(logits, label)
        for name, value in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
            found[name].append(_square(value))
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}


def _squares(rows):
    """Squared norm of each row: (B, …) → (B,) float64."""
    return rows.flatten(1).square().sum(dim=1, dtype=torch.float64)


def _square(tensor):
    return tensor.square().sum(dtype=torch.float64).item()
