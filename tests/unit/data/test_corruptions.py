"""Corruptions: deterministic, ordered by severity, and each what its name says."""

import numpy as np
import pytest

from vit_plasticity.data import corruptions
from vit_plasticity.data.corruptions import CORRUPTIONS, corrupt
from vit_plasticity.data.registry import registry
from vit_plasticity.runtime.cli import InputError


@pytest.fixture(scope="module")
def images():
    """Twelve images of a bright cross and bar on black."""
    images = np.zeros((12, 32, 32, 3), np.uint8)
    for number, image in enumerate(images):
        image[8 + number % 5 : 12 + number % 5, 4:28] = 220
        image[4:28, 12 + number % 7 : 16 + number % 7] = 180
    return images


def test_the_table_offers_them_all_and_no_other():
    offered = {entry.variant for entry in registry().values() if entry.format == "digits_c"}
    assert offered == {(name, str(severity)) for name in CORRUPTIONS for severity in range(1, 6)}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_determinism_and_order_of_severity(images, name):
    before = images.copy()
    distances = []
    for severity in range(1, 6):
        first, again = corrupt(images, name, severity), corrupt(images, name, severity)
        assert first.shape == images.shape and first.dtype == np.uint8
        assert (first == again).all()
        distances.append(np.abs(first.astype(float) - images).mean())
    assert distances == sorted(distances) and distances[0] > 0
    assert (images == before).all()


@pytest.mark.parametrize("name", ["gaussian_noise", "motion_blur", "snow", "speckle_noise"])
def test_every_image_is_corrupted_in_its_own_way(images, name):
    same = np.repeat(images[:1], 12, axis=0)
    assert len({image.tobytes() for image in corrupt(same, name, 3)}) > 6  # directions of blur may coincide


def test_contrast_shrinks_the_distance_from_the_mean(images):
    result = corruptions.contrast(images / 255, 0.1, None)
    assert result.mean() == pytest.approx((images / 255).mean())
    assert result.std() == pytest.approx(0.1 * (images / 255).std(), rel=0.1)


def test_gaussian_noise_has_its_standard_deviation(images):
    result = corruptions.gaussian_noise(np.zeros((50, 32, 32, 3), np.float32), 0.7, np.random.default_rng(0))
    assert result.std() == pytest.approx(0.7, rel=0.01)


def test_speckle_leaves_black_black(images):
    assert (corrupt(images, "speckle_noise", 5)[images == 0] == 0).all()


def test_motion_blur_keeps_a_constant_and_the_mean_of_what_lies_inside():
    constant = np.full((3, 32, 32, 3), 0.4, np.float32)
    assert np.allclose(corruptions.motion_blur(constant, 9, np.random.default_rng(0)), 0.4)
    point = np.zeros((3, 32, 32, 1), np.float32)
    point[:, 16, 16] = 1
    blurred = corruptions._blur_along(point, np.array([0, np.pi / 2, 1.0]), 9)
    assert np.allclose(blurred.sum(axis=(1, 2, 3)), 1)
    assert np.allclose(blurred[0, 16, 12:21, 0], 1 / 9) and np.allclose(blurred[1, 12:21, 16, 0], 1 / 9)


def test_snow_only_brightens(images):
    assert (corrupt(images, "snow", 4).astype(int) >= images.astype(int) - 1).all()


@pytest.mark.parametrize(("name", "severity"), [("fog", 1), ("snow", 0), ("snow", 6), ("snow", "5"), ("", 1)])
def test_others_are_refused(images, name, severity):
    with pytest.raises(InputError, match="choose from contrast"):
        corrupt(images, name, severity)
