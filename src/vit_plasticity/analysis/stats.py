"""Statistics of measurements that come in blocks. Arrays in, numbers out; what is undefined is NaN, never an error.

Dimensions: D blocks (a dataset under one model), K places in a block (one per component; NaN where there is no value).
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

STATISTICS = ("pearson", "spearman", "kendall")
_CHUNK = 1000


@dataclass(frozen=True)
class Association:
    """A coefficient of correlation: n points in n_blocks blocks, its interval and its permutation p-value."""

    estimate: float
    n: int
    n_blocks: int
    ci_low: float
    ci_high: float
    p_value: float


@dataclass(frozen=True)
class PairedTest:
    """Two paired samples: Student's t and Wilcoxon's signed-rank test of a − b, both two-sided."""

    n: int
    mean_difference: float
    t_statistic: float
    t_p_value: float
    wilcoxon_statistic: float
    wilcoxon_p_value: float


def mean_interval(mean, std, n, confidence):
    """Student's interval of a mean, from the mean, the standard deviation (n − 1) and the number of values n.

    Arrays or numbers; returns (low, high), NaN where n < 2.
    """
    n = np.asarray(n, dtype=float)
    several = np.where(n > 1, n, np.nan)
    half = stats.t.ppf(0.5 + confidence / 2, several - 1) * np.asarray(std, dtype=float) / np.sqrt(several)
    return mean - half, mean + half


def associate(x, y, statistic, *, confidence, resamples, permutations, seed):
    """Correlation of x with y inside blocks, pooled over blocks.

    x, y: (D, K); a place counts where both are finite, a block counts where it has two such places.
    With one block these are Pearson's r, Spearman's rho and Kendall's tau-b. With several, only differences inside
    blocks count: pearson centres both variables in each block (the repeated-measures correlation of Bland & Altman
    1995, BMJ 310:446), spearman ranks and centres in each block, kendall compares only pairs of the same block. A
    dataset that is easy for all components therefore adds nothing. All three are Σuv / √(Σu² Σv²) over features u(x),
    v(y) of each block (Daniels 1944, Biometrika 33:129).

    The interval holds the central `confidence` of bootstrap resamples. Of three blocks or more, blocks are drawn: it
    says how the coefficient varies with the choice of datasets, the components being given; where datasets agree it is
    narrow, however few the components. In a single block, its places are drawn: with five components it is coarse and
    wide, and says only how much hangs on one of them. Two blocks give no interval.

    The p-value is two-sided: the share of permutations of y's places, inside each block, whose coefficient is at
    least as far from zero. All permutations where there are no more than `permutations` (exact), else that many
    random ones and the identity. Five components alone cannot go below 2/120. Blocks are permuted independently:
    where components keep their order over datasets for a reason other than x, the pooled p-value is too small.

    estimate, interval and p-value are NaN for n < 3, or where x or y is constant in every block.
    """
    x, y = _aligned(x, y)
    n, n_blocks = int(np.isfinite(x).sum()), len(x)
    u, v = _features(_scores(x, statistic), statistic), _features(_scores(y, statistic), statistic)
    estimate = float(_coefficient((u * v).sum(), (u * u).sum(), (v * v).sum()))
    if n < 3 or math.isnan(estimate):
        return Association(math.nan, n, n_blocks, math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    low, high = _interval(x, y, u, v, statistic, confidence, resamples, rng)
    p_value = _permutation_p_value(u, _scores(y, statistic), v, statistic, permutations, rng)
    return Association(estimate, n, n_blocks, low, high, p_value)


def paired(a, b):
    """Tests of a − b for two samples paired by position; pairs with a missing value are left out.

    Below three pairs, or where all differences are equal, the tests are NaN.
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    difference = difference[np.isfinite(difference)].round(12)  # equal differences must tie, for Wilcoxon's ranks
    n = len(difference)
    mean = float(difference.mean()) if n else math.nan
    if n < 3 or np.ptp(difference) == 0:
        return PairedTest(n, mean, math.nan, math.nan, math.nan, math.nan)
    t = stats.ttest_1samp(difference, 0.0)
    wilcoxon = stats.wilcoxon(difference)
    return PairedTest(n, mean, *(float(v) for v in (t.statistic, t.pvalue, wilcoxon.statistic, wilcoxon.pvalue)))


def holm(p_values):
    """Holm's step-down adjustment for one family of tests; NaN stays NaN and counts as no test.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full_like(p_values, np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def _aligned(x, y):
    """x and y with NaN where either is not finite, blocks of one place dropped, finite places first in each block."""
    x, y = np.array(x, dtype=float, ndmin=2), np.array(y, dtype=float, ndmin=2)
    missing = ~(np.isfinite(x) & np.isfinite(y))
    x[missing] = y[missing] = np.nan
    order = np.argsort(missing, axis=1, kind="stable")
    blocks = (~missing).sum(axis=1) >= 2
    return np.take_along_axis(x, order, axis=1)[blocks], np.take_along_axis(y, order, axis=1)[blocks]


def _scores(values, statistic):
    """Values, or for the rank statistics their ranks among the finite ones of the last axis."""
    if statistic == "pearson" or not values.size:
        return values
    return stats.rankdata(values, axis=-1, nan_policy="omit")


def _features(scores, statistic):
    """Features whose products make the coefficient: (..., K) → (..., F); zero where a score is missing.

    Signs of all differences inside a block for kendall (F = K²), deviations from the block's mean otherwise (F = K).
    """
    if statistic == "kendall":
        signs = np.sign(scores[..., :, None] - scores[..., None, :])  # (..., K, K)
        return np.nan_to_num(signs.reshape(*scores.shape[:-1], scores.shape[-1] ** 2))
    present = np.isfinite(scores)
    total = np.where(present, scores, 0.0).sum(axis=-1, keepdims=True)
    mean = total / np.maximum(present.sum(axis=-1, keepdims=True), 1)
    centred = np.where(present, scores - mean, 0.0)
    scale = np.abs(np.where(present, scores, 0.0)).max(axis=-1, keepdims=True, initial=0.0)
    return np.where(np.abs(centred) > 1e-12 * scale, centred, 0.0)  # a constant block is exactly zero


def _coefficient(uv, uu, vv):
    norm = np.sqrt(np.asarray(uu) * np.asarray(vv))
    return np.clip(np.divide(uv, norm, out=np.full_like(norm, np.nan), where=norm > 0), -1.0, 1.0)


def _interval(x, y, u, v, statistic, confidence, resamples, rng):
    """Percentile bootstrap: blocks are drawn, or the places of the only block. (low, high), NaN below three of them."""
    if len(x) == 1:
        n = int(np.isfinite(x).sum())
        drawn = rng.integers(n, size=(resamples, n))
        a, b = (_features(_scores(values[0, drawn], statistic), statistic) for values in (x, y))
        sums = [(p * q).sum(axis=-1) for p, q in ((a, b), (a, a), (b, b))]
    elif len(x) == 2:
        return math.nan, math.nan
    else:
        drawn = rng.integers(len(x), size=(resamples, len(x)))
        sums = [(p * q).sum(axis=-1)[drawn].sum(axis=-1) for p, q in ((u, v), (u, u), (v, v))]
    coefficients = _coefficient(*sums)
    coefficients = coefficients[np.isfinite(coefficients)]  # a resample of one place, repeated, has no coefficient
    if not len(coefficients):
        return math.nan, math.nan
    low, high = np.quantile(coefficients, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _permutation_p_value(u, y, v, statistic, permutations, rng):
    """Two-sided; norms do not change under permutations inside blocks, so the numerators suffice. y: scores (D, K)."""
    sizes = np.isfinite(y).sum(axis=1)
    observed = abs((u * v).sum()) - 1e-9 * math.sqrt((u * u).sum() * (v * v).sum())
    exact = math.prod(math.factorial(size) for size in sizes) <= permutations
    orders = _all_orders(sizes, y.shape[1]) if exact else _random_orders(y, permutations, rng)
    extreme = total = 0
    for order in orders:  # (chunk, D, K)
        permuted = _features(np.take_along_axis(y[None], order, axis=-1), statistic)
        extreme += int((np.abs((permuted * u).sum(axis=(1, 2))) >= observed).sum())
        total += len(order)
    return extreme / total if exact else (extreme + 1) / (total + 1)


def _all_orders(sizes, width):
    """Every choice of one permutation per block, missing places staying last, in chunks of (chunk, D, K)."""
    per_block = [[(*p, *range(size, width)) for p in itertools.permutations(range(size))] for size in sizes]
    choices = itertools.product(*per_block)
    while chunk := list(itertools.islice(choices, _CHUNK)):
        yield np.array(chunk)


def _random_orders(y, count, rng):
    """Random permutations inside each block, missing places staying last, in chunks of (chunk, D, K)."""
    for start in range(0, count, _CHUNK):
        keys = rng.random((min(_CHUNK, count - start), *y.shape))
        yield np.argsort(np.where(np.isfinite(y), keys, np.inf), axis=-1)
