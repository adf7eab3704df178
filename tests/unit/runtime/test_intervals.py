"""Intervals of a mean over pairs: images that repeat are one observation, and 95 % means 95 %."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from vit_plasticity.predictors.points import pair_indices
from vit_plasticity.runtime.intervals import image_interval


def test_pairs_without_a_repeated_image_have_students_interval():
    values = np.random.default_rng(0).lognormal(size=(3, 40))
    mean, low, high = image_interval(values, np.arange(40), np.arange(40)[::-1], 0.9)
    expected = stats.t.interval(0.9, 39, loc=values.mean(axis=1), scale=stats.sem(values, axis=1))
    np.testing.assert_allclose(mean, values.mean(axis=1))
    np.testing.assert_allclose((low, high), expected)


def test_variance_by_hand():
    """Rates 1, 3 (source 0) and 2, 6 (source 1) with targets 0, 1: residuals -2, 0, -1, 3."""
    mean, low, high = image_interval([1, 3, 2, 6], [0, 0, 1, 1], [0, 1, 0, 1], 0.95)
    by_source, by_target, by_pair = 2 * (4 + 4), 2 * (9 + 9), 4 / 3 * (4 + 0 + 1 + 9)
    half = stats.t.ppf(0.975, 1) * np.sqrt(by_source + by_target - by_pair) / 4
    assert mean == 3
    assert (low, high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_repeating_every_pair_adds_no_certainty():
    random = np.random.default_rng(0)
    values, source, target = random.lognormal(size=50), np.arange(50), random.permutation(50)
    once = np.array(image_interval(values, source, target, 0.95))
    repeated = np.array(image_interval(np.tile(values, 9), np.tile(source, 9), np.tile(target, 9), 0.95))
    np.testing.assert_allclose(repeated, once)


def test_where_two_way_variance_is_not_positive_the_larger_one_way_stands():
    """Every image sees one high and one low rate: its sums are zero, and the difference negative."""
    values, source, target = [0.0, 1.0, 1.0, 0.0, 0.0, 1.01], [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]
    mean, low, high = image_interval(values, source, target, 0.95)
    residuals = np.array(values) - mean
    by_source = 3 / 2 * sum(residuals[[i, i + 1]].sum() ** 2 for i in (0, 2, 4))
    by_target = 2 / 1 * sum(residuals[i::2][[0, 1, 2]].sum() ** 2 for i in (0, 1))
    assert by_source + by_target < 6 / 5 * np.square(residuals).sum()
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 1) * np.sqrt(max(by_source, by_target)) / 6)


@pytest.mark.parametrize(("source", "target", "same"), [([0, 0], [0, 1], False), ([0, 1], [1, 0], True)])
def test_too_few_images_have_no_interval(source, target, same):
    mean, low, high = image_interval([1.0, 2.0], source, target, 0.95, same_images=same)
    assert mean == 1.5
    assert np.isnan([low, high]).all()


def test_one_sample_on_both_sides_is_wider_than_two():
    """In a ring of pairs each image stands in two: its effect counts twice."""
    values = np.repeat(np.random.default_rng(0).normal(size=30), 2)  # images 0 to 29 twice as source: dependent pairs
    source, target = np.repeat(np.arange(30), 2), np.roll(np.repeat(np.arange(30), 2), 1)
    _, low, high = image_interval(values, source, target, 0.95, same_images=True)
    _, low_two, high_two = image_interval(values, source, target + 30, 0.95)
    assert high - low > 1.1 * (high_two - low_two)


@pytest.mark.parametrize(
    ("n_source", "n_target", "pairs", "same"),
    [(30, 60, 600, False), (100, 100, 3000, False), (60, 60, 60, False), (400, 60, 240, False), (100, 100, 3000, True)],
)
def test_intervals_cover_the_truth_as_often_as_they_say(n_source, n_target, pairs, same):
    """Rates with an effect of each image and of each pair, images reused: 93 to 97 % of 1,000 samples."""
    random, held = np.random.default_rng(1), 0
    for _ in range(1000):
        seed = int(random.integers(2**31))
        source, target = pair_indices(n_source, n_target, SimpleNamespace(pairs=pairs, seed=seed), same)
        of_source, of_target = random.lognormal(sigma=0.5, size=n_source), random.lognormal(sigma=0.5, size=n_target)
        of_pair = random.standard_normal((n_source, n_target))
        if same:
            of_target, of_pair = of_source, (of_pair + of_pair.T) / np.sqrt(2)
        rates = of_source[source] + of_target[target] + of_pair[source, target]
        _, low, high = image_interval(rates, source, target, 0.95, same_images=same)
        held += low <= 2 * np.exp(0.5**2 / 2) <= high
    assert 0.93 <= held / 1000 <= 0.97
