"""Correlation inside blocks: coefficients, partial coefficients, intervals, permutation p-values, and differences.

Dimensions: D blocks (a dataset under one model), K places in a block (one per component; NaN where there is no value).
Arrays in, numbers out; what is undefined is NaN, never an error.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

STATISTICS = ("pearson", "spearman", "kendall")
_VALUES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Association:
    """A coefficient of correlation: n points in n_blocks blocks, its interval and its permutation p-value."""

    estimate: float
    n: int
    n_blocks: int
    ci_low: float
    ci_high: float
    p_value: float


def associate(x, y, statistic, *, confidence, resamples, permutations, seed, clusters=None, given=None):
    """Correlation of x with y inside blocks, pooled over blocks.

    x, y: (D, K); a place counts where both are finite, a block counts where it has two such places.
    With one block these are Pearson's r, Spearman's rho and Kendall's tau-b. With several, only differences inside
    blocks count: pearson centres both variables in each block (the repeated-measures correlation of Bland & Altman
    1995, BMJ 310:446), spearman ranks and centres in each block, kendall compares only pairs of the same block. A
    dataset that is easy for all components therefore adds nothing. All three are Σuv / √(Σu² Σv²) over features u(x),
    v(y) of each block (Daniels 1944, Biometrika 33:129).

    given: (D, K), a third variable; the coefficient is then the partial one, of what is left of the features of x and
    y after their pooled regression on those of `given`.

    The interval holds the central `confidence` of bootstrap resamples. Of several blocks, clusters are drawn (clusters:
    (D,) labels, one per block; blocks of one dataset under several models share one; default: each block its own): it
    says how the coefficient varies with the choice of datasets, the components being given; where datasets agree it is
    narrow, however few the components. Fewer than three clusters give no interval. In a single block, its places are
    drawn: with five components it is coarse and wide, and says only how much hangs on one of them; a partial
    coefficient has none there.

    The p-value is two-sided: the share of permutations of y's places, inside each block, whose coefficient is at
    least as far from zero. All permutations where there are no more than `permutations` (exact), else that many
    random ones and the identity. Partial coefficients permute the residuals of y (Freedman & Lane 1983, Journal of
    Business & Economic Statistics 1:292). Five components alone cannot go below 2/120. Blocks are permuted
    independently: where components keep their order over datasets for a reason other than x, the pooled p-value is too
    small.

    estimate, interval and p-value are NaN for n < 3 (n < 4 for a partial one), or where x or y, or what is left of
    them, is constant in every block.
    """
    variables, clusters = _aligned([x, y] if given is None else [x, y, given], clusters)
    n, n_blocks = int(np.isfinite(variables[0]).sum()), len(variables[0])
    features = [_features(_scores(values, statistic), statistic) for values in variables]
    estimate = float(_coefficient(_products(features)))
    if n < len(features) + 1 or math.isnan(estimate):
        return Association(math.nan, n, n_blocks, math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    drawn = _resampled(variables, features, clusters, statistic, resamples, rng)
    sizes = np.isfinite(variables[0]).sum(axis=1)
    p_value = _permutation_p_value(features, sizes, statistic, permutations, rng)
    return Association(estimate, n, n_blocks, *percentiles(drawn, confidence), p_value)


def difference(a, b, y, statistic, *, confidence, resamples, seed, clusters=None):
    """The coefficient of a with y, that of b with y, and the bootstrap interval of their difference.

    a, b, y: (D, K); only places where all three are finite count. The same clusters (see `associate`) are drawn for
    both coefficients. Returns (coefficient of a, coefficient of b, n, n_blocks, ci_low, ci_high).
    """
    (a, b, y), clusters = _aligned([a, b, y], clusters)
    n, n_blocks = int(np.isfinite(y).sum()), len(y)
    u, w, v = (_features(_scores(values, statistic), statistic) for values in (a, b, y))
    first, second = (float(_coefficient(_products([f, v]))) for f in (u, w))
    if n < 3 or n_blocks < 2 or math.isnan(first - second):
        return first, second, n, n_blocks, math.nan, math.nan
    draws = [
        _resampled(None, [f, v], clusters, statistic, resamples, np.random.default_rng(seed)) for f in (u, w)
    ]  # equal seeds draw the same clusters
    return first, second, n, n_blocks, *percentiles(draws[0] - draws[1], confidence)


def percentiles(drawn, confidence):
    """The central `confidence` of bootstrap values: (low, high), NaN where there is none."""
    drawn = drawn[np.isfinite(drawn)]  # a resample of one place, repeated, has no coefficient
    if not len(drawn):
        return math.nan, math.nan
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def draw_clusters(clusters, resamples, rng):
    """How often each block stands in each resample of clusters: (resamples, D). clusters: (D,) labels."""
    _, member = np.unique(clusters, return_inverse=True)
    n = member.max() + 1
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    return counts[:, member]


def _aligned(variables, clusters):
    """Variables, NaN where any is not finite, finite places first, blocks of one place dropped; and the clusters."""
    variables = [np.array(values, dtype=float, ndmin=2) for values in variables]
    missing = ~np.logical_and.reduce([np.isfinite(values) for values in variables])
    order = np.argsort(missing, axis=1, kind="stable")
    blocks = (~missing).sum(axis=1) >= 2
    for values in variables:
        values[missing] = np.nan
    clusters = np.arange(len(blocks)) if clusters is None else np.asarray(clusters)
    width = int((~missing).sum(axis=1).max(initial=0))
    return [np.take_along_axis(values, order, axis=1)[blocks, :width] for values in variables], clusters[blocks]


def _scores(values, statistic):
    """Values, or for the rank statistics their ranks among the finite ones of the last axis."""
    if statistic == "pearson" or not values.size:
        return values
    return stats.rankdata(values, axis=-1, nan_policy="omit")


def _features(scores, statistic):
    """Features whose products make the coefficient: (..., K) → (..., F); zero where a score is missing.

    Signs of the differences of all pairs inside a block for kendall (F = K (K − 1) / 2), deviations from the block's
    mean otherwise (F = K).
    """
    if statistic == "kendall":
        i, j = np.triu_indices(scores.shape[-1], 1)
        return np.nan_to_num(np.sign(scores[..., i] - scores[..., j]))
    present = np.isfinite(scores)
    total = np.where(present, scores, 0.0).sum(axis=-1, keepdims=True)
    mean = total / np.maximum(present.sum(axis=-1, keepdims=True), 1)
    centred = np.where(present, scores - mean, 0.0)
    scale = np.abs(np.where(present, scores, 0.0)).max(axis=-1, keepdims=True, initial=0.0)
    return np.where(np.abs(centred) > 1e-12 * scale, centred, 0.0)  # a constant block is exactly zero


def _products(features, axis=None):
    """Sums of the products of every two features, each with itself too, over `axis` (default: all)."""
    pairs = itertools.combinations_with_replacement(range(len(features)), 2)
    return {(i, j): (features[i] * features[j]).sum(axis=axis) for i, j in pairs}


def _coefficient(s):
    """The coefficient of feature 0 with feature 1, given feature 2 where there is one. s: as of `_products`."""
    uv, uu, vv = s[0, 1], s[0, 0], s[1, 1]
    if (2, 2) in s:
        slope_u, slope_v = (_ratio(s[i, 2], s[2, 2]) for i in (0, 1))
        uv = uv - slope_u * s[1, 2]
        uu, vv = (_left(whole, slope * s[i, 2]) for i, whole, slope in ((0, uu, slope_u), (1, vv, slope_v)))
    norm = np.sqrt(np.asarray(uu) * np.asarray(vv))
    return np.clip(np.divide(uv, norm, out=np.full_like(norm, np.nan), where=norm > 0), -1.0, 1.0)


def _ratio(a, b):
    """a / b, zero where b is."""
    return np.divide(a, b, out=np.zeros_like(np.asarray(a, dtype=float)), where=np.asarray(b) > 0)


def _left(whole, explained):
    """What is left of a sum of squares; nothing where only rounding is."""
    return np.where(whole - explained > 1e-9 * whole, whole - explained, 0.0)


def _resampled(variables, features, clusters, statistic, resamples, rng):
    """Coefficients of bootstrap resamples: clusters of blocks are drawn, or the places of the only block."""
    if len(features[0]) == 1 and len(features) == 2:
        n = int(np.isfinite(variables[0]).sum())
        drawn = rng.integers(n, size=(resamples, n))
        again = [_features(_scores(values[0, drawn], statistic), statistic) for values in variables]
        return _coefficient(_products(again, axis=-1))
    if len(np.unique(clusters)) < 3:
        return np.empty(0)
    times = draw_clusters(clusters, resamples, rng)
    return _coefficient({pair: times @ sums for pair, sums in _products(features, axis=-1).items()})


def _permutation_p_value(features, sizes, statistic, permutations, rng):
    """Two-sided; see `associate`. sizes: (D,) finite places of each block, which stand first."""
    u, v = features[:2]
    w = None
    if len(features) == 3:
        w = features[2]
        u, v = (f - _ratio((f * w).sum(), (w * w).sum()) * w for f in (u, v))
    norm = math.sqrt((u * u).sum() * (v * v).sum())
    observed = abs((u * v).sum()) / norm - 1e-9
    exact = math.prod(math.factorial(size) for size in sizes) <= permutations
    chunk = max(1, _VALUES_AT_ONCE // v.size)
    orders = _all_orders(sizes, chunk) if exact else _random_orders(sizes, permutations, chunk, rng)
    permute = _permuter(v, statistic)
    extreme = total = 0
    for order in orders:  # (chunk, D, K)
        permuted = permute(order)  # (chunk, D F)
        coefficient = np.abs(permuted @ u.ravel()) / norm
        if w is not None and (w * w).any():
            explained = (permuted @ w.ravel()) ** 2 / (w * w).sum() / (v * v).sum()
            coefficient = coefficient / np.sqrt(np.maximum(1 - explained, 1e-12))
        extreme += int((coefficient >= observed).sum())
        total += len(order)
    return extreme / total if exact else (extreme + 1) / (total + 1)


def _permuter(v, statistic):
    """A function from orders of places (chunk, D, K) to the features of the places so permuted (chunk, D F)."""
    if statistic != "kendall":
        return lambda order: np.take_along_axis(v[None], order, axis=-1).reshape(len(order), -1)
    k = round((1 + math.sqrt(1 + 8 * v.shape[1])) / 2)
    i, j = np.triu_indices(k, 1)
    signs = np.zeros((len(v), k, k))
    signs[:, i, j], signs[:, j, i] = v, -v
    blocks = np.arange(len(v))[None, :, None]
    return lambda order: signs[blocks, order[..., i], order[..., j]].reshape(len(order), -1)


def _all_orders(sizes, chunk):
    """Every choice of one permutation per block, missing places staying last, in chunks of (chunk, D, K)."""
    width = max(sizes)
    per_block = [[(*p, *range(size, width)) for p in itertools.permutations(range(size))] for size in sizes]
    choices = itertools.product(*per_block)
    while some := list(itertools.islice(choices, chunk)):
        yield np.array(some)


def _random_orders(sizes, count, chunk, rng):
    """Random permutations inside each block, missing places staying last, in chunks of (chunk, D, K)."""
    missing = np.arange(max(sizes)) >= np.asarray(sizes)[:, None]
    for start in range(0, count, chunk):
        keys = rng.random((min(chunk, count - start), *missing.shape))
        yield np.argsort(np.where(missing, np.inf, keys), axis=-1)
