"""Rates of change in situ: on the inputs that a component really receives, block after block, in both images of a pair.

ln1 receives the residual stream h; mha LN1(h); ln2 h + attention branch; fc1 LN2(·); fc2 activation(FC1(·)). What comes
after a component, such as LayerScale, is no part of it.
Dimensions: N pairs, L tokens, D width of what a component receives, E of what it gives.
"""

from typing import NamedTuple

import torch

from vit_plasticity import vit
from vit_plasticity.predictors import points
from vit_plasticity.vit.components import MEASURABLE


class Changes(NamedTuple):
    """What a component does to the pairs, block by block, each float64 (n_blocks, N): Frobenius norms of the change of
    its input and of its output, and of the source image's input and output."""

    input_change: torch.Tensor
    output_change: torch.Tensor
    input_norm: torch.Tensor
    output_norm: torch.Tensor

    @property
    def rates(self):
        return self.output_change / self.input_change

    @property
    def elasticities(self):
        """Relative change of the output per relative change of the input."""
        return self.rates * self.input_norm / self.output_norm


def rates_of_change(model, source, target, component):
    """Rates of change ‖f(x) − f(y)‖_F / ‖x − y‖_F of one component in every block, x and y what it receives.

    source, target: (N, 3, S, S), already normalised, pair by pair. Returns float64 (n_blocks, N).
    Raises ValueError as `plasticity.rates_of_change` does.
    """
    return changes(model, source, target, (component,))[component].rates


@torch.inference_mode()
def changes(model, source, target, components=MEASURABLE):
    """The Changes of some components, in one walk through the blocks: {component: Changes}."""
    if unknown := [one for one in components if one not in MEASURABLE]:
        raise ValueError(f"no rate of change is defined for {unknown[0]!r}; choose from {', '.join(MEASURABLE)}")
    if source.shape != target.shape:
        raise ValueError(f"source has shape {tuple(source.shape)} and target {tuple(target.shape)}; they must agree")
    pairs = zip(*(images.split(points.at_once(model)) for images in (source, target)), strict=True)
    return joined([_changes_of_batch(model, x, y, components) for x, y in pairs])


def joined(parts):
    """Changes of some pairs, and of the pairs after them, as one: a list of {component: Changes} → such a dict."""
    return {
        one: Changes(*(torch.cat(found, dim=1) for found in zip(*(part[one] for part in parts), strict=True)))
        for one in parts[0]
    }


def _changes_of_batch(model, source, target, components):
    """One forward pass of both images of every pair; nothing is computed a second time."""
    family, n = vit.family(model), len(source)
    found = {one: [] for one in components}

    def note(one, received, gave, first):
        (x, y), (of_x, of_y) = received.split(n), gave.split(n)
        if first:
            found[one].append([_of_tokens(x - y), _of_tokens(of_x - of_y), _of_tokens(x), _of_tokens(of_x)])
        else:  # of the parts of one component, whose outputs stand side by side
            norms = found[one][-1]
            norms[1], norms[3] = norms[1].hypot(_of_tokens(of_x - of_y)), norms[3].hypot(_of_tokens(of_x))

    handles = [
        part.register_forward_hook(
            lambda module, received, gave, one=one, first=i == 0: note(one, received[0], gave, first)
        )
        for block in family.blocks(model)
        for one in components
        for i, part in enumerate(family.parts(block, one))
    ]
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            family.after_blocks(model, vit.embed(model, torch.cat([source, target])))
    finally:
        for handle in handles:
            handle.remove()
    return {one: _joined_tokens(one, blocks) for one, blocks in found.items()}


def _of_tokens(tokens):
    """Norm of each token: (N, L, D) → (N, L)."""
    return torch.linalg.vector_norm(tokens, dim=2)


def _joined_tokens(component, blocks):
    """The Changes of a component from the four norms of each token in every block."""
    norms = torch.stack([torch.stack(block) for block in blocks])  # (n_blocks, 4, N, L)
    changes = Changes(*norms.double().square().sum(dim=3).sqrt().unbind(dim=1))
    if not bool((changes.input_change > 0).all()):
        raise ValueError(
            f"a source and a target image give {component} the same input: the rate of change of such a pair is "
            "undefined"
        )
    return changes
