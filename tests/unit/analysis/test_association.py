"""Correlations in blocks: against scipy where scipy has them, against hand arithmetic and brute force where not."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from vit_plasticity.analysis import association

SETTINGS = {"confidence": 0.95, "resamples": 500, "permutations": 2000, "seed": 0}
SCIPY = {"pearson": reference.pearsonr, "spearman": reference.spearmanr, "kendall": reference.kendalltau}
NAN = math.nan
pytestmark = pytest.mark.filterwarnings("error")


def associate(x, y, statistic="pearson", **settings):
    return association.associate(x, y, statistic, **SETTINGS | settings)


def numbers(found):
    return [found.estimate, found.ci_low, found.ci_high, found.p_value]


@pytest.fixture
def blocks():
    """Seven blocks of five, whose levels differ far more than what happens inside them."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(7, 5))
    return x, 0.8 * x + rng.normal(size=(7, 5)) + 100 * rng.normal(size=(7, 1))


@pytest.mark.parametrize("statistic", association.STATISTICS)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 9), ties=st.booleans())
@settings(max_examples=30, deadline=None)
def test_one_block_is_what_scipy_computes(statistic, seed, n, ties):
    x, y = np.random.default_rng(seed).normal(size=(2, n)).round(0 if ties else 9)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    assert associate(x, y, statistic, permutations=10).estimate == pytest.approx(
        SCIPY[statistic](x, y).statistic, abs=1e-9
    )


@pytest.mark.parametrize("statistic", association.STATISTICS)
def test_the_exact_p_value_is_the_share_of_all_permutations(statistic):
    x, y = np.array([0.4, 2.4, 0.6, 1.6, 1.1]), np.array([70.0, 74, 71, 75, 73])
    observed = abs(SCIPY[statistic](x, y).statistic)
    every = [abs(SCIPY[statistic](x, p).statistic) for p in itertools.permutations(y)]
    expected = np.mean([value >= observed - 1e-12 for value in every])
    assert associate(x, y, statistic).p_value == pytest.approx(expected)


def test_a_perfect_order_of_five_has_the_smallest_p_value_there_is():
    assert associate([1, 2, 3, 4, 5], [1, 4, 9, 16, 25], "spearman").p_value == pytest.approx(2 / 120)


def test_pooled_pearson_is_the_correlation_of_deviations_from_the_mean_of_the_block(blocks):
    x, y = blocks
    centred = [(v - v.mean(axis=1, keepdims=True)).ravel() for v in (x, y)]
    found = associate(x, y)
    assert found.estimate == pytest.approx(reference.pearsonr(*centred).statistic)
    assert (found.n, found.n_blocks) == (35, 7)


def test_pooled_spearman_is_the_correlation_of_ranks_inside_the_block(blocks):
    x, y = (reference.rankdata(v, axis=1).ravel() for v in blocks)
    assert associate(*blocks, "spearman").estimate == pytest.approx(reference.pearsonr(x, y).statistic)


def test_pooled_kendall_counts_pairs_of_the_same_block(blocks):
    x, y = blocks
    signs = [
        np.sign((x[d, i] - x[d, j]) * (y[d, i] - y[d, j]))
        for d in range(7)
        for i, j in itertools.combinations(range(5), 2)
    ]
    assert associate(x, y, "kendall").estimate == pytest.approx(np.mean(signs))


@pytest.mark.parametrize("statistic", association.STATISTICS)
def test_the_level_of_a_block_does_not_count(blocks, statistic):
    x, y = blocks
    moved = y + np.arange(7)[:, None] * 1000
    assert numbers(associate(x, moved, statistic)) == pytest.approx(numbers(associate(x, y, statistic)), abs=1e-6)


def test_permutations_stay_inside_blocks():
    """Two blocks of three: 36 permutations. The p-value is their share, and is not that of permutations of all six."""
    x, y = np.array([[1.0, 2, 3], [1, 2, 3]]), np.array([[1.0, 2, 3], [12, 11, 13]])
    u, v = (a - a.mean(axis=1, keepdims=True) for a in (x, y))
    sums = [
        (u[0] * p).sum() + (u[1] * q).sum() for p in itertools.permutations(v[0]) for q in itertools.permutations(v[1])
    ]
    expected = np.mean(np.abs(sums) >= (u * v).sum() - 1e-9)
    assert associate(x, y).p_value == pytest.approx(expected)


def test_random_permutations_agree_with_the_exact_ones():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, 4))
    y = x + rng.normal(size=(2, 4))
    exact = associate(x, y, permutations=math.factorial(4) ** 2).p_value
    assert associate(x, y, permutations=500).p_value == pytest.approx(exact, abs=0.05)


def test_p_values_of_unrelated_data_are_uniform():
    rng = np.random.default_rng(3)
    p_values = [associate(*rng.normal(size=(2, 4, 5)), permutations=200, resamples=10).p_value for _ in range(200)]
    assert reference.kstest(p_values, "uniform").pvalue > 0.01


def test_the_interval_over_blocks_is_that_of_scipy(blocks):
    x, y = (v - v.mean(axis=1, keepdims=True) for v in blocks)
    terms = [(a * b).sum(axis=1) for a, b in ((x, y), (x, x), (y, y))]

    def pooled(xy, xx, yy, axis):
        return xy.sum(axis) / np.sqrt(xx.sum(axis) * yy.sum(axis))

    expected = reference.bootstrap(terms, pooled, paired=True, method="percentile", n_resamples=20_000, rng=1)
    found = associate(*blocks, resamples=20_000)
    assert [found.ci_low, found.ci_high] == pytest.approx(list(expected.confidence_interval), abs=0.01)


def test_the_interval_in_one_block_draws_its_places():
    x, y = np.array([0.4, 2.4, 0.6, 1.6, 1.1, 0.9]), np.array([70.0, 74, 72, 75, 73, 71])
    drawn = np.random.default_rng(1).integers(6, size=(4000, 6))
    drawn = drawn[drawn.min(axis=1) < drawn.max(axis=1)]  # one place six times has no coefficient
    expected = np.quantile([np.corrcoef(x[i], y[i])[0, 1] for i in drawn], [0.025, 0.975])
    found = associate(x, y, resamples=20_000)
    assert [found.ci_low, found.ci_high] == pytest.approx(list(expected), abs=0.05)


def test_two_blocks_have_no_interval(blocks):
    found = associate(blocks[0][:2], blocks[1][:2])
    assert not math.isnan(found.estimate)
    assert math.isnan(found.ci_low) and math.isnan(found.ci_high)


@pytest.mark.parametrize("statistic", association.STATISTICS)
def test_missing_places_and_lone_ones_do_not_count(statistic):
    x = np.array([[1.0, 2, 3, 4], [NAN, 5, NAN, 3], [1, NAN, NAN, NAN]])
    y = np.array([[2.0, NAN, 3, 5], [7, 9, NAN, 8], [1, NAN, NAN, NAN]])
    found = associate(x, y, statistic)
    shuffled = associate(x[:, [2, 0, 3, 1]], y[:, [2, 0, 3, 1]], statistic)
    assert (found.n, found.n_blocks, found.estimate) == (
        5,
        2,
        pytest.approx(1.0 if statistic != "pearson" else found.estimate),
    )
    assert found.p_value == pytest.approx(shuffled.p_value) == pytest.approx(2 / 12)


@pytest.mark.parametrize("statistic", association.STATISTICS)
@pytest.mark.parametrize(
    ("x", "y", "n"),
    [
        ([1, 2], [3, 4], 2),
        ([NAN, NAN, 1], [1, 2, 3], 0),
        ([0.1] * 5, [1, 2, 3, 4, 5], 5),
        ([1, 2, 3], [NAN, NAN, NAN], 0),
        ([1, 2, math.inf], [1, 2, 3], 2),
        (np.empty((0, 0)), np.empty((0, 0)), 0),
        ([[0.3] * 4, [0.7] * 4], [[1, 2, 3, 4], [4, 3, 2, 1]], 8),
    ],
)
def test_what_is_undefined_is_null_with_its_n(statistic, x, y, n):
    found = associate(x, y, statistic)
    assert found.n == n
    assert all(map(math.isnan, numbers(found)))


def test_the_same_seed_gives_the_same_numbers(blocks):
    assert associate(*blocks) == associate(*blocks)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_partial_coefficient_is_that_of_residuals(seed):
    """Of ranks, centred in blocks: the correlation of what is left after regression on the third variable."""
    x, y, z = np.random.default_rng(seed).normal(size=(3, 4, 5))
    u, v, w = ((reference.rankdata(a, axis=1) - 3).ravel() for a in (x, y, z))
    left = [a - (a @ w) / (w @ w) * w for a in (u, v)]
    found = associate(x, y, "spearman", given=z, permutations=10, resamples=10)
    assert found.estimate == pytest.approx(reference.pearsonr(*left).statistic)
    assert found.n == 20


def test_what_the_third_variable_explains_wholly_has_no_partial_coefficient(blocks):
    x, y = blocks
    assert all(map(math.isnan, numbers(associate(x, y, "spearman", given=3 * x + 1))))
    constant = associate(x, y, "spearman", given=np.ones_like(x))
    assert numbers(constant) == pytest.approx(numbers(associate(x, y, "spearman")))


def test_partial_p_values_of_unrelated_data_are_uniform_where_the_third_variable_drives_both():
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(150):
        z = rng.normal(size=(4, 6))
        x, y = z + rng.normal(size=(2, 4, 6))
        p_values.append(associate(x, y, "spearman", given=z, permutations=200, resamples=10).p_value)
    assert reference.kstest(p_values, "uniform").pvalue > 0.01


def test_blocks_of_one_dataset_are_drawn_together(blocks):
    """Each dataset under two models, with equal numbers: no more is known than from one model."""
    x, y = blocks
    twice = [np.concatenate([a, a]) for a in (x, y)]
    together = associate(*twice, clusters=[*range(7), *range(7)])
    alone = associate(x, y)
    assert [together.ci_low, together.ci_high] == pytest.approx([alone.ci_low, alone.ci_high])
    assert associate(*twice).ci_high - associate(*twice).ci_low < alone.ci_high - alone.ci_low


def test_two_datasets_have_no_interval_however_many_models(blocks):
    found = associate(*blocks, clusters=["a", "b", "a", "b", "a", "b", "a"])
    assert math.isnan(found.ci_low) and not math.isnan(found.p_value)


def test_the_difference_of_two_coefficients_has_an_interval_over_blocks(blocks):
    x, y = blocks
    other = -x
    a, b, n, n_blocks, low, high = association.difference(
        x, other, y, "pearson", confidence=0.95, resamples=2000, seed=0
    )
    assert (a, b, n, n_blocks) == (pytest.approx(-b), pytest.approx(-a), 35, 7)
    alone = associate(x, y, resamples=2000)
    assert [low, high] == pytest.approx([2 * alone.ci_low, 2 * alone.ci_high], abs=0.05)
    equal = association.difference(x, x, y, "spearman", confidence=0.95, resamples=100, seed=0)
    assert equal[4:] == (0, 0)
