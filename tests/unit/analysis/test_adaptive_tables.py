"""Adaptive components in the tables: beside random ones and the best fixed one, and out of everything else."""

import itertools

import pandas as pd
import pytest

from vit_plasticity.analysis import adaptive, matrix, schemas
from vit_plasticity.analysis import summary as analysis

VALIDATION = {
    "mha": (0.8, 0.8), "fc1": (0.7, 0.9), "qkv": (0.5, 0.5), "proj": (0.5, 0.5), "ln1": (0.6, 0.6), "ln2": (0.1, 0.95),
    "norm": (0.9, 0.6), "mha+fc1": (0.9, 0.7), "full": (1.0, 1.0), "mha~8": (1.0, 1.0), "lora2:mha": (1.0, 1.0),
    "auto:snip:1": (0.9, 0.9), "auto:snip:2": (0.9, 0.9), "auto:random:2": (0.2, 0.2), "auto:snip:3": (0.9, 0.9),
}  # fmt: skip
"""Component → its validation accuracy on two datasets. The test accuracy orders all the other way round."""


def summary(without=()):
    rows = [
        {
            "model": "m", "dataset": f"d{i}", "component": name, "n_runs": 1, "plasticity": None, "relative_gain": None,
            "val_accuracy_mean": value, "test_accuracy_mean": 1 - value, "test_accuracy_std": None,
        }
        for name, values in VALIDATION.items()
        for i, value in enumerate(values)
        if (name, i) not in without
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"relative_gain": float, "plasticity": float, "test_accuracy_std": float})


def compared(rows):
    """Adaptive component → what it is compared with."""
    pairs = list(adaptive.pairs(rows))
    return {name: [other for one, other in pairs if one == name] for name, _ in pairs}


def test_the_best_fixed_component_of_equal_budget_is_chosen_on_validation():
    found = compared(summary())
    # Of one: mha and fc1 have the mean 0.8, the first of equals; of two: norm is ln1+ln2, mha is qkv+proj.
    assert found["auto:snip:1"] == ["mha"]
    assert found["auto:snip:2"] == ["auto:random:2", "mha"]
    assert found["auto:random:2"] == ["mha"]
    assert found["auto:snip:3"] == ["mha+fc1"]  # qkv, proj and fc1
    without_parts = summary([(name, i) for name in ("qkv", "proj") for i in (0, 1)])
    assert compared(without_parts)["auto:snip:2"] == ["auto:random:2", "mha+fc1"]
    assert "auto:snip:3" not in compared(without_parts)  # none of three was trained


def test_a_fixed_component_that_did_not_finish_everywhere_is_not_the_best():
    without_parts = [(name, i) for name in ("qkv", "proj") for i in (0, 1)]
    assert compared(summary([*without_parts, ("mha+fc1", 1)]))["auto:snip:2"] == ["auto:random:2", "norm"]


def test_adaptive_components_change_no_rank_and_no_test_of_the_others():
    rows = summary()
    fixed = rows[~rows["component"].str.startswith("auto:")]
    pd.testing.assert_frame_equal(analysis.rank(rows), analysis.rank(fixed))
    tests, others = analysis.paired_tests(rows), analysis.paired_tests(fixed)
    own = tests["component_a"].map(adaptive.is_adaptive)
    pd.testing.assert_frame_equal(tests[~own].reset_index(drop=True), others)
    n_fixed = fixed["component"].nunique()
    assert len(others) == len(list(itertools.combinations(range(n_fixed), 2)))  # no relative gain here
    against = tests[own].set_index(["component_a", "component_b"])["mean_difference"]
    assert against["auto:snip:2", "auto:random:2"] == pytest.approx(0.1 - 0.8)
    assert against["auto:snip:1", "mha"] == pytest.approx(0.1 - 0.2)


def test_they_stand_in_the_matrix_without_a_rank():
    frame = matrix.matrices(summary(), analysis.rank(summary()))["m"]
    assert frame.at["auto:snip:2", "d0"] == ("10.0", False)
    assert frame.at["auto:snip:2", "rank"][0] == "–"
    assert frame.at["mha", "rank"][0] != "–"


def test_what_it_was_resolved_to_is_optional_in_a_cell_and_joined_over_seeds():
    table = schemas.schema("finetune").empty_table().drop_columns("resolved")
    assert schemas.conform(table, "finetune").schema.field("resolved") == schemas.schema("finetune").field("resolved")
    row = {
        "model": "m", "dataset": "d", "lr": 0.1, "outcome": "finished", "val_accuracy": 0.5, "test_accuracy": 0.5,
        "n_parameters": 2, "n_trained": 1, "peak_memory_mb": 1.0, "step_duration_s": 1.0,
    }  # fmt: skip
    seeds = [("auto:random:1", 0, "mha"), ("auto:random:1", 1, "fc1"), ("auto:random:1", 2, "mha"), ("mha", 0, None)]
    runs = [row | dict(zip(("component", "seed", "resolved"), one, strict=True)) for one in seeds]
    found = analysis.accuracy_of(pd.DataFrame(runs))["resolved"]
    assert found["m", "d", "auto:random:1"] == "mha, fc1"
    assert pd.isna(found["m", "d", "mha"])
