"""Corruptions of small images, in five severities, made deterministically.

Source: the definitions follow the spirit of Hendrycks & Dietterich 2019 ("Benchmarking neural network robustness to
common corruptions and perturbations"); the strengths are our own, chosen for 32 x 32 digits, whose strokes survive far
more than a photograph's texture: severity 5 is hard, and still learnable.
Letters: n images of height H and width W; images are float in [0, 1].
"""

import numpy as np

from vit_plasticity.runtime.cli import InputError


def corrupt(images, corruption, severity, seed=0):
    """Corrupted copies of uint8 images (n, H, W, 3); the same arguments give the same pixels.

    Raises InputError for an unknown corruption or a severity other than 1 to 5.
    """
    if corruption not in CORRUPTIONS or severity not in range(1, 6):
        raise InputError(
            f"no corruption {corruption!r} of severity {severity!r}; choose from {', '.join(CORRUPTIONS)} and 1 to 5"
        )
    function, strengths = CORRUPTIONS[corruption]
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(corruption), severity])
    result = function(images.astype(np.float32) / 255, strengths[severity - 1], rng)
    return np.round(np.clip(result, 0, 1) * 255).astype(np.uint8)


def contrast(images, factor, rng):
    """Shrink the distance of every pixel from its image's mean."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return (images - mean) * factor + mean


def gaussian_noise(images, sigma, rng):
    """Add noise of standard deviation sigma to every value."""
    return images + sigma * rng.standard_normal(images.shape, dtype=np.float32)


def speckle_noise(images, sigma, rng):
    """Add noise in proportion to the value."""
    return images + sigma * images * rng.standard_normal(images.shape, dtype=np.float32)


def motion_blur(images, length, rng):
    """Average each image along a line of `length` pixels in its own random direction."""
    angles = rng.uniform(0, np.pi, len(images))
    return _blur_along(images, angles, length)


def snow(images, strength, rng):
    """Whiten each image and let flakes, smeared along one direction per image, fall over it."""
    density, flake, whitening = strength
    n, height, width, _ = images.shape
    layer = (rng.random((n, height, width, 1)) < density) * rng.uniform(0.6, 1, (n, height, width, 1))
    angles = rng.uniform(np.pi / 4, 3 * np.pi / 4, n)
    layer = np.minimum(_blur_along(layer.astype(np.float32), angles, flake) * flake, 1)
    whitened = images * (1 - whitening) + whitening * np.maximum(images, 0.5)
    return np.maximum(whitened, 0) + layer


def _blur_along(images, angles, length):
    """Mean of `length` copies of each image (n, H, W, C), shifted along its angle by whole pixels, edges repeated."""
    n, height, width, _ = images.shape
    offsets = np.arange(length) - (length - 1) / 2
    rows, columns = np.arange(height), np.arange(width)
    total = np.zeros_like(images)
    for offset in offsets:
        down = np.round(offset * np.sin(angles)).astype(int)[:, None]
        right = np.round(offset * np.cos(angles)).astype(int)[:, None]
        r, c = np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
        total += images[np.arange(n)[:, None, None], r[:, :, None], c[:, None, :]]
    return total / length


CORRUPTIONS = {
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "gaussian_noise": (gaussian_noise, (0.2, 0.35, 0.5, 0.7, 0.9)),
    "motion_blur": (motion_blur, (5, 8, 11, 14, 17)),
    "snow": (snow, ((0.02, 3, 0.1), (0.04, 4, 0.2), (0.06, 5, 0.3), (0.08, 5, 0.35), (0.09, 6, 0.4))),
    "speckle_noise": (speckle_noise, (0.4, 0.8, 1.3, 1.9, 2.6)),
}
"""name → (function, its strength at severities 1 to 5)."""
