"""Paired tests and their adjustment: those of scipy, and null where undefined."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from vit_plasticity.analysis import stats

NAN = math.nan
pytestmark = pytest.mark.filterwarnings("error")


def test_paired_tests_are_scipys_without_missing_pairs():
    a, b = np.array([3.0, 5, NAN, 8, 9, 7]), np.array([2.0, 5.5, 1, 5, 4, 6.5])
    found, kept = stats.paired(a, b), np.isfinite(a)
    t, w = reference.ttest_rel(a[kept], b[kept]), reference.wilcoxon(a[kept], b[kept])
    assert (found.n, found.mean_difference) == (5, pytest.approx(1.8))
    assert (found.t_statistic, found.t_p_value) == (pytest.approx(t.statistic), pytest.approx(t.pvalue))
    assert (found.wilcoxon_statistic, found.wilcoxon_p_value) == (w.statistic, pytest.approx(w.pvalue))


@pytest.mark.parametrize(("a", "b"), [([1, 2], [2, 4]), ([1.1, 2.1, 3.1], [1, 2, 3]), ([1, 1, 1], [1, 1, 1]), ([], [])])
def test_paired_tests_without_an_answer_are_null(a, b):
    found = stats.paired(a, b)
    assert found.n == len(a)
    assert math.isnan(found.t_p_value) and math.isnan(found.wilcoxon_p_value)


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert stats.holm([0.01, 0.04, 0.03, NAN, 0.5]) == pytest.approx([0.04, 0.09, 0.09, NAN, 0.5], nan_ok=True)
    assert stats.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert len(stats.holm([])) == 0


def test_the_critical_difference_of_ranks_is_that_of_demsar():
    """Table 5 of Demšar 2006: q is 2.569 for four and 2.728 for five classifiers; his example has 14 datasets."""
    assert stats.critical_rank_difference(4, 14) == pytest.approx(2.569 * (4 * 5 / (6 * 14)) ** 0.5, abs=2e-3)
    assert stats.critical_rank_difference(5, 30) == pytest.approx(2.728 * (5 * 6 / (6 * 30)) ** 0.5, abs=2e-3)
    assert stats.critical_rank_difference(5, 1) == float("inf")
