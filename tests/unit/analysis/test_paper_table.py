"""The paper's own table of accuracies, through the same functions as our results.

Expectations are computed here from the printed numbers, by plain arithmetic and by scipy, not by our functions.
"""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vit_plasticity.analysis import summary as analysis

TABLE = Path(__file__).parents[2] / "data" / "paper_accuracy.csv"
COMPONENTS = ["mha", "fc1", "fc2", "ln2", "ln1", "full"]
N_DATASETS = 11


@pytest.fixture(scope="module")
def printed():
    """Column → list of the eleven printed numbers, in percent."""
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name != "dataset"}


@pytest.fixture(scope="module")
def summary():
    return analysis.from_accuracies(pd.read_csv(TABLE), model="vit_base")


@pytest.fixture(scope="module")
def tests(summary):
    return analysis.paired_tests(summary)


def test_every_number_of_the_table_is_in_the_summary(summary, printed):
    assert len(summary) == N_DATASETS * len(COMPONENTS)
    for component in COMPONENTS:
        rows = summary[summary["component"] == component]
        assert (100 * rows["test_accuracy_mean"]).tolist() == pytest.approx(printed[component])
        assert (100 * rows["test_accuracy_std"]).tolist() == pytest.approx(printed[f"{component}_std"])


def test_gains_are_relative_to_the_probe_and_gaps_to_full(summary):
    row = summary.set_index(["dataset", "component"]).loc[("domainnet_sketch", "mha")]
    assert row["relative_gain"] == pytest.approx((69.23 - 29.08) / 29.08)
    assert row["gap_to_full"] == pytest.approx(0.7130 - 0.6923)


def test_mean_accuracies_gains_and_ranks(summary, printed):
    ranking = analysis.rank(summary).set_index("component")
    ranks = np.array([stats.rankdata([-printed[c][i] for c in COMPONENTS]) for i in range(N_DATASETS)]).mean(axis=0)
    for component, rank in zip(COMPONENTS, ranks, strict=True):
        gains = [a / p - 1 for a, p in zip(printed[component], printed["linear_probe"], strict=True)]
        row = ranking.loc[component]
        assert row["n_datasets"] == N_DATASETS
        assert 100 * row["test_accuracy_mean"] == pytest.approx(sum(printed[component]) / N_DATASETS)
        assert row["relative_gain_mean"] == pytest.approx(sum(gains) / N_DATASETS)
        assert row["rank_mean"] == pytest.approx(rank)
    assert ranking["rank_mean"].is_monotonic_increasing


@pytest.mark.parametrize(("a", "b"), [("mha", "ln1"), ("mha", "fc1"), ("fc1", "full"), ("ln2", "fc2")])
@pytest.mark.parametrize("outcome", ["accuracy", "relative_gain"])
def test_paired_tests_are_those_of_scipy_on_the_printed_columns(tests, printed, a, b, outcome):
    tests = tests[tests["outcome"] == outcome]
    (row,) = tests[tests["component_a"].isin([a, b]) & tests["component_b"].isin([a, b])].to_dict("records")
    first, second = (np.array(printed[row[f"component_{side}"]]) / 100 for side in "ab")
    if outcome == "relative_gain":
        probe = np.array(printed["linear_probe"]) / 100
        first, second = first / probe - 1, second / probe - 1
    t, wilcoxon = stats.ttest_rel(first, second), stats.wilcoxon((first - second).round(10))
    assert row["n_datasets"] == N_DATASETS
    assert row["mean_difference"] == pytest.approx((first - second).mean())
    assert (row["t_statistic"], row["t_p_value"]) == (pytest.approx(t.statistic), pytest.approx(t.pvalue))
    assert row["wilcoxon_p_value"] == pytest.approx(wilcoxon.pvalue)


def test_adjusted_p_values_are_of_the_fifteen_pairs_of_one_outcome(tests):
    assert len(tests) == 2 * 15
    for _, family in tests.groupby("outcome"):
        smallest = family.loc[family["t_p_value"].idxmin()]
        assert smallest["t_p_value_holm"] == pytest.approx(15 * smallest["t_p_value"])
        assert (family["t_p_value_holm"] >= family["t_p_value"]).all()
