"""Where inputs of components come from: which images make pairs, and images as a model takes them."""

import numpy as np

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
