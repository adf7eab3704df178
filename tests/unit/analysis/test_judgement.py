"""The judgement of predictors, on the paper's own table and on numbers worked by hand."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from vit_plasticity.analysis import judge
from vit_plasticity.analysis.judgement import GIVEN_NULL, is_single

PAPER = Path(__file__).parents[2] / "data/paper_accuracy.csv"
FAST = {"bootstrap": 200, "permutations": 200}
ORDER = {"mha": 5.0, "fc1": 4.0, "fc2": 3.0, "ln2": 2.0, "ln1": 1.0}
SIZE = {"mha": 6.4, "fc1": 6.4, "fc2": 6.4, "ln2": 4.3, "ln1": 4.3}
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def paper():
    wide = pd.read_csv(PAPER)
    long = wide.melt("dataset", [*ORDER, "full"], "component", "test_accuracy_mean")
    return long.assign(model="vit_base", test_accuracy_mean=long["test_accuracy_mean"] / 100)


def predicted(accuracies, **values):
    """Predictors of one value per component on every dataset."""
    keys = accuracies[["model", "dataset"]].drop_duplicates().to_dict("records")
    return pd.DataFrame([
        {"predictor": name, **key, "component": component, "value": value}
        for name, by_component in values.items()
        for key in keys
        for component, value in by_component.items()
    ])  # fmt: skip


@pytest.fixture(scope="module")
def judged(paper):
    return judge(paper, predicted(paper, plasticity=ORDER, parameters=SIZE), **FAST)


def made_up(seed=0, models=("m",), datasets=tuple("abcd")):
    rng = np.random.default_rng(seed)
    rows = [
        {
            "model": m,
            "dataset": d,
            "component": c,
            "test_accuracy_mean": rng.random(),
            "val_accuracy_mean": rng.random(),
        }
        for m in models
        for d in datasets
        for c in ORDER
    ]
    return pd.DataFrame(rows)


REGRETS = {
    "always-mha": (110, 26, 0.10),
    "always-fc1": (188, 84, 0.17),
    "always-fc2": (597, 106, 0.54),
    "always-ln2": (1008, 422, 0.92),
    "always-ln1": (1138, 373, 1.04),
    "random": (608.2, 167.8, 0.55),
    "plasticity": (110, 26, 0.10),
}
"""Rule → sum and largest over the eleven datasets, in hundredths of a point, added up by hand from the printed table;
and the mean in points as the issue states it."""


@pytest.mark.parametrize("rule", REGRETS)
def test_regret_of_the_papers_table(judged, rule):
    """Against the best of five components."""
    total, largest, stated = REGRETS[rule]
    regret = judged["regret"]
    (row,) = regret[regret["rule"].eq(rule) & regret["scope"].eq("all")].to_dict("records")
    assert row["regret"] == pytest.approx(total / 11 / 1e4, abs=1e-12)
    assert row["regret_max"] == pytest.approx(largest / 1e4, abs=1e-12)
    mean = 100 * row["regret"]
    assert abs(mean - stated) < 0.006 if rule == "always-ln1" else round(mean, 2) == stated
    assert (row["n"], row["n_diverged"]) == (11, 0) and row["ci_low"] < row["regret"] < row["ci_high"]
    ours = regret[regret["rule"].eq(rule) & regret["scope"].eq("dataset")]
    assert len(ours) == 11 and ours["regret"].mean() == pytest.approx(row["regret"])


def test_what_diverged_is_charged_with_the_worst_that_was_trained():
    accuracies = made_up(datasets="abcd").drop(columns="val_accuracy_mean")
    accuracies.loc[accuracies["component"].eq("mha") & accuracies["dataset"].eq("b"), "test_accuracy_mean"] = np.nan
    found = judge(accuracies, predicted(accuracies, p=ORDER), **FAST)
    on_b = accuracies.query("dataset == 'b'")["test_accuracy_mean"]
    rows = found["regret"].query("scope == 'dataset' and dataset == 'b'").set_index("rule")
    for rule in ("always-mha", "p"):
        assert rows.loc[rule, "regret"] == pytest.approx(on_b.max() - on_b.min())
        assert np.isnan(rows.loc[rule, "test_accuracy"]) and rows.loc[rule, "n_diverged"] == 1
    assert rows.loc["random", "regret"] == pytest.approx(on_b.max() - on_b.fillna(on_b.min()).mean())
    assert rows.loc["always-fc1", "n_diverged"] == 0 and rows.loc["always-fc1", "test_accuracy"] > 0
    whole = found["regret"].query("scope == 'all'").set_index("rule")
    each = found["regret"].query("scope == 'dataset' and rule == 'p'")["regret"]
    assert whole.loc["p", "regret"] == pytest.approx(each.mean())
    assert (whole.loc["p", "n"], whole.loc["p", "n_diverged"], whole.loc["always-fc1", "n_diverged"]) == (4, 1, 0)
    assert np.isnan(whole.loc["p", "test_accuracy"])
    assert found["correlation"].query("scope == 'all'")["n"].eq(19).all()


def test_a_dataset_on_which_all_diverged_has_no_regret():
    accuracies = made_up(datasets="ab")
    accuracies.loc[accuracies["dataset"].eq("b"), "test_accuracy_mean"] = np.nan
    regret = judge(accuracies, predicted(accuracies, p=ORDER), **FAST)["regret"]
    assert set(regret["dataset"].dropna()) == {"a"} and regret["regret"].notna().all()


def test_components_that_tie_share(judged, paper):
    """The three largest components are of one size: `parameters` gets their mean accuracy."""
    row = judged["regret"].query("rule == 'parameters' and dataset == 'pet'").iloc[0]
    assert row["component"] == "mha, fc1, fc2"
    assert 100 * row["test_accuracy"] == pytest.approx((94.37 + 94.26 + 93.98) / 3)
    assert 100 * row["regret"] == pytest.approx(94.46 - (94.37 + 94.26 + 93.98) / 3)


def test_full_takes_no_part(judged):
    assert "always-full" not in set(judged["regret"]["rule"])
    assert judged["regret"]["regret"].ge(0).all()
    assert judged["correlation"].query("scope == 'all'")["n"].eq(55).all()


NOT_SINGLE = ["full", "head", "embed", "mha+fc1", "lora8:mha", "bias", "norm", "ffn", "mha~1536", "auto:snip:1"]


@pytest.mark.parametrize("name", NOT_SINGLE)
def test_only_single_components_are_places(name):
    assert not is_single(name)
    assert is_single("mha") and is_single("mha@0-5") and is_single("fc1@11")


def test_validation_is_a_rule_where_it_is_known():
    accuracies = made_up()
    regret = judge(accuracies, predicted(accuracies, p=ORDER), **FAST)["regret"].query("rule == 'validation'")
    one = accuracies[accuracies["dataset"] == "a"].set_index("component")
    best = one["val_accuracy_mean"].idxmax()
    row = regret[regret["dataset"] == "a"].iloc[0]
    assert (row["component"], row["test_accuracy"]) == (best, one["test_accuracy_mean"][best])
    assert row["regret"] == pytest.approx(one["test_accuracy_mean"].max() - one["test_accuracy_mean"][best])
    without = judge(accuracies.drop(columns="val_accuracy_mean"), predicted(accuracies, p=ORDER), **FAST)
    assert "validation" not in set(without["regret"]["rule"])


def test_correlations_have_every_scope_and_statistic_and_nothing_twice(judged):
    found = judged["correlation"]
    keys = ["predictor", "scope", "model", "dataset", "outcome", "statistic"]
    assert not found.duplicated(keys).any()
    assert len(found) == (11 + 1 + 1) * (3 + 4)  # parameters has no coefficient given itself
    assert set(found.query("predictor == 'parameters'")["statistic"]) == {"pearson", "spearman", "kendall"}
    assert found["predictor"].iloc[0] == "parameters"


def test_relative_gain_stands_only_where_it_can_differ(paper):
    probe = pd.read_csv(PAPER).set_index("dataset")["linear_probe"] / 100
    gains = paper.assign(relative_gain=paper["test_accuracy_mean"] / paper["dataset"].map(probe) - 1)
    found = judge(gains, predicted(gains, plasticity=ORDER), **FAST)["correlation"]
    gain = found[found["outcome"] == "relative_gain"]
    assert gain[["scope", "statistic"]].values.tolist() == [["model", "pearson"], ["all", "pearson"]]
    pearson = found[found["statistic"].eq("pearson") & found["scope"].eq("all")]
    assert pearson["estimate"].nunique() == 2


def test_pooled_spearman_given_parameters_is_that_of_residual_ranks(judged, paper):
    wide = paper.pivot(index="dataset", columns="component", values="test_accuracy_mean")[list(ORDER)]
    ranks = [np.tile(reference.rankdata(list(v.values())) - 3, 11) for v in (ORDER, SIZE)]
    u, w = ranks
    v = (reference.rankdata(wide, axis=1) - 3).ravel()
    left = [a - (a @ w) / (w @ w) * w for a in (u, v)]
    row = (
        judged["correlation"].query("scope == 'all' and predictor == 'plasticity' and statistic == @GIVEN_NULL").iloc[0]
    )
    assert row["estimate"] == pytest.approx(np.corrcoef(*left)[0, 1])
    assert 0 < row["p_value"] < 1 and row["ci_low"] < row["estimate"] < row["ci_high"]
    assert GIVEN_NULL == "spearman_given_parameters"


def test_every_two_predictors_are_compared_over_datasets(judged):
    found = judged["differences"].query("scope == 'all' and statistic == 'pearson'")
    assert found[["predictor_a", "predictor_b"]].values.tolist() == [["parameters", "plasticity"]]
    row = found.iloc[0]
    alone = judged["correlation"].query("scope == 'all' and statistic == 'pearson'").set_index("predictor")["estimate"]
    assert row["difference"] == pytest.approx(alone["parameters"] - alone["plasticity"])
    assert row["ci_low"] < row["difference"] < row["ci_high"]


def test_models_on_the_same_datasets_are_no_further_datasets():
    one, two = (made_up(models=m) for m in (("m",), ("m", "n")))
    two = pd.concat([one, one.assign(model="n")])
    find = lambda rows: judge(rows, predicted(rows, p=ORDER), **FAST)  # noqa: E731
    intervals = [
        frame.query("scope == 'all'")[["ci_low", "ci_high"]].to_numpy(float)
        for rows in (one, two)
        for frame in (find(rows)["correlation"], find(rows)["regret"])
    ]
    np.testing.assert_allclose(intervals[0], intervals[2])
    np.testing.assert_allclose(intervals[1], intervals[3])


def test_missing_values_leave_the_others(paper):
    values = predicted(paper, bound={"fc1": 2.0, "fc2": 1.0, "mha": np.nan}, parameters=SIZE)
    values.loc[values["predictor"].eq("bound") & values["dataset"].eq("pet"), "value"] = np.nan
    found = judge(paper, values, **FAST)
    regret = found["regret"].query("rule == 'bound' and scope == 'dataset'")
    assert len(regret) == 10 and set(regret["component"]) == {"fc1"}
    assert found["correlation"].query("predictor == 'bound' and scope == 'all'")["n"].unique().tolist() == [20]


def test_values_of_blocks_are_no_values_of_components(paper):
    whole = predicted(paper, plasticity=ORDER).assign(block=pd.array([pd.NA], dtype="Int64")[0])
    by_block = whole.assign(block=0, value=-whole["value"])
    both = pd.concat([whole, by_block]).astype({"block": "Int64"})
    pd.testing.assert_frame_equal(judge(paper, both, **FAST)["correlation"], judge(paper, whole, **FAST)["correlation"])


def test_blocks_can_be_the_places():
    components = [f"{c}@{b}" for c in ORDER for b in range(12)]
    accuracies = pd.DataFrame({"model": "m", "dataset": "d", "component": components, "test_accuracy_mean": range(60)})
    values = accuracies.assign(predictor="p", value=accuracies["test_accuracy_mean"] ** 2)
    found = judge(accuracies, values, **FAST)["correlation"].query("statistic == 'spearman' and scope == 'dataset'")
    assert (found["n"].item(), found["estimate"].item()) == (60, pytest.approx(1))


@pytest.mark.parametrize("empty", ["accuracies", "predictors"])
def test_nothing_gives_empty_frames(paper, empty):
    frames = {"accuracies": paper, "predictors": predicted(paper, p=ORDER)}
    frames[empty] = frames[empty].iloc[:0]
    found = judge(**frames, **FAST)
    assert found["correlation"]["estimate"].isna().all()
    assert (len(found["regret"]) == 0) == (empty == "accuracies")


def test_what_cannot_be_meant_is_refused(paper):
    values = predicted(paper, p=ORDER)
    with pytest.raises(ValueError, match="accuracies: column 'component' is missing; needed are model"):
        judge(paper.drop(columns="component"), values)
    with pytest.raises(ValueError, match="predictors: more than one row for"):
        judge(paper, pd.concat([values, values]))
    with pytest.raises(TypeError, match="level"):
        judge(paper, values, level=0.9)


def test_the_same_seed_gives_the_same_frames(paper, judged):
    again = judge(paper, predicted(paper, plasticity=ORDER, parameters=SIZE), **FAST)
    for name, frame in judged.items():
        pd.testing.assert_frame_equal(frame, again[name])


def test_importing_the_room_imports_neither_scipy_nor_pandas():
    script = "import sys, vit_plasticity.analysis; assert not {'scipy', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_defaults_are_those_of_the_schema():
    import yaml

    import vit_plasticity

    schema = yaml.safe_load(Path(vit_plasticity.__file__).with_name("study").joinpath("config.schema.yaml").read_text())
    ours = {n: p.default for n, p in inspect.signature(judge).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert ours == {n: p["default"] for n, p in schema["properties"]["analysis"]["properties"].items() if n in ours}
    assert set(ours) == {"confidence", "bootstrap", "permutations", "seed"}
