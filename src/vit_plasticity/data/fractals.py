"""Procedural images of fractals, the classes of which are iterated function systems (IFS).

Source: FractalDB (Kataoka et al. 2020, "Pre-training without natural images"; Nakashima et al. 2021 for Vision
Transformers). A class is a random contractive IFS; its images vary the parameters, the view and the colours.
Letters: B images, W walkers, M maps per system.
"""

from dataclasses import dataclass

import numpy as np

from vit_plasticity.runtime.cli import InputError

_MAPS = (2, 5)  # fewest and most maps of a system
_WALKERS, _WARM_UP, _KEPT = 160, 12, 24  # points per image: walkers x kept steps
_FILLED = 0.2  # least fraction of pixels that a class's image must cover, as in FractalDB


@dataclass(frozen=True)
class FractalParams:
    """How many classes and images to draw, of which size (pixels); the same seed draws the same images.

    images_per_class counts the images of all splits together.
    """

    classes: int = 32
    images_per_class: int = 150
    image_size: int = 32
    seed: int = 0

    def __post_init__(self):
        limits = {
            "classes": (2, 100_000),
            "images_per_class": (3, 100_000),
            "image_size": (8, 1024),
            "seed": (0, 2**32 - 1),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise InputError(f"fractals: {name} must be a whole number from {least} to {most}, got {value!r}")


def draw_class(params, index):
    """All images of one class, uint8 (images_per_class, size, size, 3)."""
    rng = np.random.default_rng([params.seed, index])
    maps, weights = draw_system(rng)
    batch = maps[None] * rng.uniform(0.85, 1.15, (params.images_per_class, *maps.shape))
    points = _view(rng, _walk(rng, batch, weights))
    return _colour(rng, _density(points, params.image_size))


def draw_system(rng):
    """A random IFS whose attractor is neither a speck nor a line.

    Returns its affine maps (M, 2, 3) and the weights (M,) with which they are applied; these sum to 1.
    """
    while True:
        n_maps = rng.integers(_MAPS[0], _MAPS[1] + 1)
        maps = np.empty((n_maps, 2, 3))
        maps[:, :, :2] = _contractions(rng, n_maps)
        maps[:, :, 2] = rng.uniform(-1, 1, (n_maps, 2))
        weights = np.abs(np.linalg.det(maps[:, :, :2])) + 0.02
        weights /= weights.sum()
        density = _density(_fit(_walk(rng, maps[None], weights)), 32)
        if (density > 0).mean() > _FILLED:
            return maps, weights


def _contractions(rng, n):
    """Random 2x2 matrices (n, 2, 2) whose largest singular value is below 0.9, so that every attractor is bounded."""
    large = rng.uniform(0.3, 0.9, n)
    small = large * rng.uniform(0.3, 1, n) * rng.choice([-1, 1], n)
    left, right = _rotations(rng.uniform(0, 2 * np.pi, n)), _rotations(rng.uniform(0, 2 * np.pi, n))
    return left * np.stack([large, small], -1)[:, None] @ right


def _rotations(angles):
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def _walk(rng, maps, weights):
    """Points of the attractors, (B, W * kept, 2): walkers that apply a random map of their system at each step.

    maps: (B, M, 2, 3).
    """
    n_images = len(maps)
    rows = np.arange(n_images)[:, None]
    points = np.zeros((n_images, _WALKERS, 2))
    kept = np.empty((n_images, _KEPT, _WALKERS, 2))
    cumulative = np.cumsum(weights)[:-1]
    for step in range(_WARM_UP + _KEPT):
        chosen = np.searchsorted(cumulative, rng.random((n_images, _WALKERS)))
        m = maps[rows, chosen]  # (B, W, 2, 3)
        points = m[..., 0] * points[..., :1] + m[..., 1] * points[..., 1:] + m[..., 2]
        if step >= _WARM_UP:
            kept[:, step - _WARM_UP] = points
    return kept.reshape(n_images, -1, 2)


def _fit(points):
    """Shift and scale points (B, n, 2) so that each image's lie within the unit square, aspect kept."""
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    extent = (high - low).max(axis=2, keepdims=True) + 1e-9
    return (points - (low + high) / 2) / extent + 0.5


def _view(rng, points):
    """See each image under its own rotation, reflection, zoom and shift."""
    n = len(points)
    turn = _rotations(rng.uniform(-0.6, 0.6, n)) * rng.choice([-1, 1], (n, 1, 2))
    centred = (_fit(points) - 0.5) @ turn
    zoom, shift = rng.uniform(0.75, 1.05, (n, 1, 1)), rng.uniform(-0.08, 0.08, (n, 1, 2))
    return (_fit(centred) - 0.5) * zoom + 0.5 + shift


def _density(points, size):
    """How densely points (B, n, 2) of the unit square fall into pixels: (B, size, size), in [0, 1], logarithmic."""
    pixels = np.floor(points * size).astype(np.int64)
    inside = ((pixels >= 0) & (pixels < size)).all(axis=-1)
    image = np.broadcast_to(np.arange(len(points))[:, None], inside.shape)
    flat = (image * size + pixels[..., 1]) * size + pixels[..., 0]
    counts = np.bincount(flat[inside], minlength=len(points) * size * size).reshape(-1, size, size)
    return np.minimum(np.log1p(counts) / np.log(1 + 0.25 * counts.max(axis=(1, 2), keepdims=True)), 1)


def _colour(rng, density):
    """Paint each density in its own random pair of colours, half of them grey.

    density: (B, size, size) in [0, 1]. Returns uint8 (B, size, size, 3).
    """
    n = len(density)
    back, front = rng.uniform(0, 0.35, (n, 3)), rng.uniform(0.55, 1, (n, 3))
    grey = rng.random(n) < 0.5
    back[grey], front[grey] = back[grey].mean(axis=1, keepdims=True), front[grey].mean(axis=1, keepdims=True)
    inverted = rng.random(n) < 0.25
    back[inverted], front[inverted] = front[inverted], back[inverted]
    pixels = back[:, None, None] + density[..., None] * (front - back)[:, None, None]
    return np.round(pixels * 255).astype(np.uint8)
