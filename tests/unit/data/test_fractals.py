"""Procedural fractals: contractive systems, filled images, classes that can be told apart, and speed."""

import time

import numpy as np
import pytest

from vit_plasticity.data import fractals
from vit_plasticity.data.fractals import FractalParams, draw_class, draw_system
from vit_plasticity.runtime.cli import InputError

PARAMS = FractalParams(classes=8, images_per_class=40)


@pytest.fixture(scope="module")
def images():
    return np.stack([draw_class(PARAMS, index) for index in range(PARAMS.classes)])


def test_shape_and_range(images):
    assert images.shape == (8, 40, 32, 32, 3) and images.dtype == np.uint8
    assert (images.std(axis=(2, 3, 4)) > 5).all(), "an image is blank"


def test_the_same_seed_draws_the_same_images_and_another_draws_others(images):
    assert (draw_class(PARAMS, 3) == images[3]).all()
    assert (draw_class(FractalParams(8, 40, seed=1), 3) != images[3]).any()
    assert (images[2] != images[3]).any()


def test_the_images_of_a_class_differ(images):
    for one in images:
        assert len({image.tobytes() for image in one}) == len(one)


def test_systems_are_contractive_and_fill_the_image():
    for seed in range(20):
        maps, weights = draw_system(np.random.default_rng(seed))
        assert (np.linalg.svd(maps[:, :, :2], compute_uv=False) < 0.9).all()
        assert weights.sum() == pytest.approx(1) and (weights > 0).all()


def test_a_known_attractor_is_drawn():
    """Two maps that halve towards (0, 0) and (1, 1) have the diagonal as attractor."""
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    maps = np.stack([half, half + np.array([0, 0, 0.5])])
    points = fractals._walk(np.random.default_rng(0), maps[None], np.array([0.5, 0.5]))
    assert np.abs(points[..., 0] - points[..., 1]).max() < 1e-3
    density = fractals._density(fractals._fit(points), 16)[0]
    assert (np.diag(density)[1:-1] > 0).all() and density.sum() == pytest.approx(np.trace(density))


def test_classes_can_be_told_apart_but_not_by_a_trifle(images):
    """Nearest neighbour on coarse grey images: far above chance, well below perfect."""
    grey = images.mean(axis=-1).reshape(8, 40, 16, 2, 16, 2).mean(axis=(3, 5)).reshape(8, 40, -1)
    grey = np.abs(grey - np.median(grey, axis=-1, keepdims=True))
    grey /= np.linalg.norm(grey, axis=-1, keepdims=True)
    train, test = grey[:, :30].reshape(240, -1), grey[:, 30:].reshape(80, -1)
    nearest = (test @ train.T).argmax(axis=1) // 30
    accuracy = (nearest == np.repeat(np.arange(8), 10)).mean()
    assert 0.4 < accuracy < 0.99


def test_drawing_is_fast():
    start = time.process_time()
    draw_class(FractalParams(images_per_class=200), 0)
    assert time.process_time() - start < 0.75  # 20 classes in 15 s


@pytest.mark.parametrize("size", [8, 64])
def test_other_sizes(size):
    assert draw_class(FractalParams(2, 3, size), 0).shape == (3, size, size, 3)


def test_absurd_sizes_are_refused():
    for given in ({"classes": 1}, {"images_per_class": 2}, {"image_size": 100_000}, {"seed": -1}, {"classes": True}):
        with pytest.raises(InputError, match="whole number"):
            FractalParams(**given)
