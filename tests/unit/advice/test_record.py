"""The record of the predictors: what ships, what studies add, and which predictor is followed."""

import math

import pandas as pd
import pytest
from processes import ROOT

from vit_plasticity.advice import record
from vit_plasticity.analysis import judge
from vit_plasticity.analysis import summary as analysis
from vit_plasticity.runtime.cli import InputError

WIDTH, HIDDEN = 768, 3072  # of ViT-Base
PARAMETERS = {
    "mha": 4 * WIDTH * WIDTH + 4 * WIDTH,
    "fc1": WIDTH * HIDDEN + HIDDEN,
    "fc2": WIDTH * HIDDEN + WIDTH,
    "ln1": 2 * WIDTH,
    "ln2": 2 * WIDTH,
}
PAPER_ORDER = {"mha": 5, "fc1": 4, "fc2": 3, "ln2": 2, "ln1": 1}
"""The order of plasticity of ViT-Base as the paper gives it; regret reads nothing but the highest."""


def of_the_paper():
    """The rows of the record that the paper's own table of accuracies implies."""
    accuracies = analysis.from_accuracies(pd.read_csv(ROOT / "tests" / "data" / "paper_accuracy.csv"), model="vit_base")
    values = {"parameters": {c: math.log10(n) for c, n in PARAMETERS.items()}, "plasticity": PAPER_ORDER}
    predictors = pd.DataFrame(
        [
            {"predictor": name, "model": "vit_base", "dataset": dataset, "component": component, "value": value}
            for name, by_component in values.items()
            for dataset in accuracies["dataset"].unique()
            for component, value in by_component.items()
        ]
    )
    regret = judge(accuracies, predictors, bootstrap=10, permutations=10)["regret"]
    rows = regret[regret["scope"] == "dataset"].assign(study="paper")
    return rows[record.COLUMNS].reset_index(drop=True)


def test_the_shipped_record_of_the_paper_is_what_its_table_implies():
    shipped = pd.read_csv(record.SHIPPED)
    shipped = shipped[shipped["study"] == "paper"].reset_index(drop=True)
    pd.testing.assert_frame_equal(shipped, of_the_paper(), check_dtype=False, rtol=0, atol=1e-9)
    assert shipped["dataset"].nunique() == 11


def rows(**rules):
    """A record of studies `s`: rule → its regrets, one per dataset."""
    return pd.DataFrame(
        [
            {"study": "s", "model": "m", "dataset": f"d{i}", "rule": rule, "component": "mha", "regret": regret}
            for rule, regrets in rules.items()
            for i, regret in enumerate(regrets)
        ]
    )


def test_a_summary_compares_with_the_null_on_shared_blocks():
    frame = record.summarise(rows(parameters=[0.02, 0.04, 0.06], good=[0.01, 0.01]))
    good = frame.set_index("rule").loc["good"]
    assert (good["regret"], good["regret_max"], good["n"], good["n_null"]) == (pytest.approx(0.01), 0.01, 2, 2)
    assert good["null_regret"] == pytest.approx(0.03)
    assert good["excess"] == pytest.approx(-0.02)
    assert list(frame["rule"]) == ["good", "parameters"]
    assert math.isnan(good["excess_low"])  # two datasets have no interval


def test_the_excess_has_an_interval_over_datasets():
    excess = [-0.01, -0.02, -0.03, -0.04]
    frame = record.summarise(rows(parameters=[0.1] * 4, good=[0.1 + e for e in excess])).set_index("rule")
    assert -0.04 <= frame.loc["good", "excess_low"] < -0.025 < frame.loc["good", "excess_high"] <= -0.01
    assert frame.loc["parameters", "excess_low"] == frame.loc["parameters", "excess_high"] == 0


def test_a_predictor_better_than_the_null_on_enough_blocks_is_followed():
    summary = record.summarise(rows(parameters=[0.02] * 5, good=[0.01] * 5, worse=[0.03] * 5))
    assert record.best(summary, ["parameters", "good", "worse"]) == "good"
    assert record.best(summary, ["parameters", "worse"]) == "parameters"


def test_a_predictor_on_too_few_blocks_is_not_followed_before_the_null():
    summary = record.summarise(rows(parameters=[0.02] * 5, lucky=[0.0] * 4))
    assert record.best(summary, ["parameters", "lucky"]) == "parameters"


def test_a_predictor_equal_to_the_null_does_not_beat_it():
    summary = record.summarise(rows(parameters=[0.02] * 5, same=[0.02] * 5))
    assert record.best(summary, ["same", "parameters"]) == "parameters"


def test_a_finished_study_extends_the_record_and_replaces_its_own_rows(tmp_path):
    added = rows(parameters=[0.02], random=[0.5]).assign(scope="dataset", regret_max=None)
    total = added.tail(1).assign(scope="all", regret=0.9)
    folder = tmp_path / "s" / "tables"
    folder.mkdir(parents=True)
    pd.concat([added, total]).to_parquet(folder / "regret.parquet")
    one, two = record.load([folder]), record.load([folder, folder])
    assert len(one) == len(two) == len(record.load()) + 2
    assert set(one.tail(2)["study"]) == {"s"}
    assert one.tail(1)["regret"].item() == 0.5


def test_a_folder_without_regrets_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"give the folder of tables of a finished study"):
        record.load([tmp_path])


def test_a_predictor_that_one_model_alone_speaks_for_is_not_followed():
    """On every dataset it is better on average, but only by the first of four models."""
    one = rows(parameters=[0.1] * 5, good=[0.0] * 5)
    others = [rows(parameters=[0.1] * 5, good=[0.11] * 5).assign(model=f"n{i}") for i in range(3)]
    summary = record.summarise(pd.concat([one, *others], ignore_index=True))
    assert summary.set_index("rule").loc["good", "excess"] < 0 < summary.set_index("rule").loc["good", "excess_high"]
    assert record.best(summary, ["parameters", "good"]) == "parameters"


def test_what_is_left_out_does_not_choose_its_own_rule():
    """`a` is best on d0 alone, `b` on the others: on d0 the others' choice is followed."""
    frame = record.left_out(
        rows(parameters=[0.5] * 3, a=[0.0, 0.3, 0.3], b=[0.4, 0.1, 0.2], validation=[0.0] * 3), "dataset"
    )
    assert frame.to_dict("list") == {
        "dataset": ["d0", "d1", "d2"], "rule": ["b", "a", "a"], "regret": [0.4, 0.3, 0.3], "null_regret": [0.5] * 3,
        "n": [1] * 3,
    }  # fmt: skip


def test_a_rule_that_lacks_a_block_is_not_followed_where_it_is_left_out():
    frame = record.left_out(rows(parameters=[0.5] * 3, partial=[0.0, 0.0]), "dataset")
    assert set(frame["rule"]) == {"parameters"}
    assert record.left_out(rows(parameters=[0.5] * 3), "model").empty
