"""Stopping a measurement early: off unless asked for, the same pairs as without, and intervals that hold."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_plasticity.predictors import plasticity, sequential
from vit_plasticity.study.config import Settings, settings


def measured(model, dataset, component="fc1", **params):
    params = Settings(**settings("plasticity").as_dict() | {"pairs": 150} | params)
    (found,) = plasticity.measure(model, dataset.split("train"), [(dataset.split("test"), False)], component, params)
    return found


def test_all_pairs_are_used_unless_a_width_is_given(model, dataset):
    assert settings("plasticity").relative_width == 0
    assert measured(model, dataset).rates.shape == (2, 150)


@pytest.mark.parametrize("component", ["ln1", "fc2", "mha"])
def test_a_wide_interval_stops_at_the_first_look_with_the_same_pairs(model, dataset, component):
    everything = measured(model, dataset, component)
    early = measured(model, dataset, component, relative_width=10.0)
    assert early.rates.shape == (2, 64)
    np.testing.assert_allclose(early.rates, everything.rates[:, :64])
    assert np.array_equal(early.target_image, everything.target_image[:64])


def test_a_narrow_interval_takes_all_pairs(model, dataset):
    np.testing.assert_allclose(measured(model, dataset, relative_width=1e-6).rates, measured(model, dataset).rates)


def test_every_block_must_be_known_well_enough():
    mean, half = np.array([2.0, 2.0]), np.array([0.0, 0.2])
    assert not sequential.narrow_enough(mean, mean - half, mean + half, 0.1)
    assert sequential.narrow_enough(mean[:1], mean[:1], mean[:1], 0.1)


def test_the_width_is_that_of_the_last_look(model, dataset):
    width, n_looks = 0.15, len(sequential.looks(2000))
    found = measured(model, dataset, "mha", pairs=2000, relative_width=width)
    assert 64 < found.rates.shape[1] < 2000
    assert sequential.narrow_enough(*found.interval(n_looks), width)
    found.rates = found.rates[:, : found.rates.shape[1] // 2]
    assert not sequential.narrow_enough(*found.interval(n_looks), width)


def test_reused_images_do_not_end_a_measurement():
    """600 pairs of 20 images whose rates depend on the image alone are 20 observations, not 600."""
    of_image = np.random.default_rng(0).lognormal(sigma=0.3, size=20)
    source, target = np.tile(np.arange(20), 30), np.repeat(np.arange(60), 10)
    rates = of_image[source][None]
    by_image = sequential.interval(rates, source, target, n_looks=4)
    by_pair = sequential.interval(rates, np.arange(600), np.arange(600), n_looks=4)
    assert sequential.narrow_enough(*by_pair, 0.1)
    assert not sequential.narrow_enough(*by_image, 0.1)


@given(most=st.integers(1, 100_000))
def test_looks_double_and_end_at_the_most(most):
    looks = sequential.looks(most)
    assert looks[-1] == most
    assert looks[:-1] == [64 * 2**i for i in range(len(looks) - 1)]
    assert all(a < b <= 2 * a for a, b in itertools.pairwise(looks))


def test_intervals_hold_at_all_looks_together():
    """Of 2,000 measurements of skewed rates, at most 5 % ever leave the mean outside, so few do at the last look."""
    looks = sequential.looks(2048)
    random = np.random.default_rng(0)
    rates = random.lognormal(sigma=0.3, size=(2000, looks[-1]))
    truth = np.exp(0.3**2 / 2)
    outside = np.zeros(len(rates), dtype=bool)
    for n in looks:
        _, low, high = sequential.interval(rates[:, :n], np.arange(n), np.arange(n), len(looks))
        outside |= (truth < low) | (truth > high)
    assert outside.mean() < 0.05
