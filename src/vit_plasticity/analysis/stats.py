"""Paired tests and their adjustment. Arrays in, numbers out; what is undefined is NaN, never an error."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PairedTest:
    """Two paired samples: Student's t and Wilcoxon's signed-rank test of a − b, both two-sided."""

    n: int
    mean_difference: float
    t_statistic: float
    t_p_value: float
    wilcoxon_statistic: float
    wilcoxon_p_value: float


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


def critical_rank_difference(k, n, alpha=0.05):
    """The difference of mean ranks of k treatments over n blocks that Nemenyi's test calls significant; inf for n < 2.

    Source: Demšar 2006, Journal of Machine Learning Research 7:1.
    """
    if n < 2:
        return math.inf
    return float(stats.studentized_range.isf(alpha, k, math.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n)))
