"""Where inputs of components come from: which images make pairs, and images as a model takes them."""

import math
from typing import NamedTuple

import numpy as np
import torch

from vit_plasticity import vit
from vit_plasticity.data import batches


def pair_indices(n_source, n_target, params, same_images=False):
    """Which source and which target image make each pair: two int arrays (pairs,).

    Images are drawn in shuffled passes, so that each is used equally often; the source images do not depend on the
    target. params: pairs, seed. same_images: source and target are one sample, in which no image is paired with itself.
    """

    def passes(n, stream, shift=0):
        random = np.random.default_rng([params.seed, stream])
        orders = [np.roll(random.permutation(n), shift) for _ in range(-(-params.pairs // n))]
        return np.concatenate(orders)[: params.pairs]

    return passes(n_source, 0), passes(n_target, 0, shift=1) if same_images else passes(n_target, 1)


def images(model, split, indices):
    """Images of a split as evaluation sees them, normalised, on the model's device: (n, 3, S, S)."""
    preprocessing = vit.preprocessing(model)
    pixels = batches.evaluation_pixels(split.images, preprocessing, indices)
    return batches.normalise(pixels.to(next(model.parameters()).device), preprocessing)


NUMBERS, GPU_NUMBERS = 2**20, 2**24


def at_once(model):
    """How many images, or pairs of them, are worked on at a time: as many as have NUMBERS numbers in their tokens.

    Of small models that is many, which share the time that Python takes; of large ones few, which caches hold.
    """
    family, on_gpu = vit.family(model), next(model.parameters()).is_cuda
    return max(4, (GPU_NUMBERS if on_gpu else NUMBERS) // (family.n_tokens(model)[1] * family.width(model)))


class Tokens(NamedTuple):
    """Sizes of embedded tokens: the root mean square and the largest of their norms, and the smallest variance, over
    its width, of a patch token; of n images."""

    root_mean_square: float
    largest_norm: float
    smallest_variance: float
    n: int


@torch.inference_mode()
def token_sizes(model, source, targets=(), batch=64):
    """The Tokens of (split, indices): the root mean square over `source` alone, the extremes over `targets` too."""
    prefix = vit.family(model).n_tokens(model)[0]
    total, count, norm, variance, n = 0.0, 0, 0.0, math.inf, 0
    for position, (split, indices) in enumerate([source, *targets]):
        for start in range(0, len(indices), batch):
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                tokens = vit.embed(model, images(model, split, indices[start : start + batch])).double()
            squares = tokens.square().sum(dim=2)  # (n, L)
            norm = max(norm, squares.max().item() ** 0.5)
            variance = min(variance, tokens[:, prefix:].var(dim=2, correction=0).min().item())
            if position == 0:
                total, count = total + squares.sum().item(), count + squares.numel()
            n += len(tokens)
    return Tokens((total / count) ** 0.5, norm, variance, n)
