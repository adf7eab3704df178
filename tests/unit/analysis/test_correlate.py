"""The stage `correlate`: which files it reads, what it makes of them, and what it refuses."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_study import DEMO, write_study

from vit_plasticity import correlate
from vit_plasticity.analysis import html as html_table
from vit_plasticity.analysis import inputs, predictor_table, schemas, tables
from vit_plasticity.analysis import summary as analysis
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.intervals import image_interval
from vit_plasticity.study import grid as layout

SMALL = {"models": ["m"], "datasets": ["a", "b", "c"], "components": ["mha", "fc1", "ln1", "full"], "seeds": [0, 1]}
LRS = (1e-3, 1e-2, 1e-1)
PARAMS = json.dumps({"bootstrap": 50, "permutations": 100})
STUDY_TABLES = set(schemas.COLUMNS) - set(schemas.INPUTS)
PREDICTORS = ["bound", "parameters", "fisher"]
GRID = SMALL | {"predictors": PREDICTORS, "evaluate_on": {"a": ["b", "c"]}}
pytestmark = pytest.mark.filterwarnings("error")


def diverging(component, lr, seed, dataset, **_):
    """full diverges at the largest rate in one seed, ln1 everywhere on dataset c."""
    return (component == "full" and lr == 1e-1 and seed == 1) or (component == "ln1" and dataset == "c")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("results"), **GRID, lrs=LRS, steps=10, every=5, diverges=diverging)


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    """The tables of the grid: (name → frame, folder)."""
    folder = tmp_path_factory.mktemp("tables")
    run(folder, "--results", results, "--grid", json.dumps(GRID))
    return SimpleNamespace(folder=folder, **frames(folder))


def run(folder, *arguments, study="synthetic"):
    correlate.main(["--study", study, "--params", PARAMS, "--output", str(folder), *map(str, arguments)])


def frames(folder):
    return {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}


def row(frame, **key):
    """The one row of a frame with this key."""
    for name, value in key.items():
        frame = frame[frame[name] == value]
    (found,) = frame.to_dict("records")
    return found


def runs(*rows):
    """Rows of fine-tuning from (seed, lr, val, test), val None for a diverged run; everything else is plausible."""
    return pd.DataFrame([
        {
            "model": "m", "dataset": "d", "component": "mha", "seed": seed, "lr": lr, "val_accuracy": val,
            "test_accuracy": test, "outcome": "finished" if val is not None else "diverged", "n_parameters": 1000,
            "n_trained": 250, "peak_memory_mb": 100.0, "step_duration_s": 0.01, "resolved": None,
        }
        for seed, lr, val, test in rows
    ]).astype({"val_accuracy": float, "test_accuracy": float})  # fmt: skip


def chosen(*rows):
    return analysis.accuracy_of(runs(*rows)).iloc[0]


class TestChoice:
    """The learning rate of a component."""

    def test_validation_decides_and_test_is_reported(self):
        found = chosen((0, 0.1, 0.6, 0.9), (1, 0.1, 0.6, 0.9), (0, 0.2, 0.7, 0.5), (1, 0.2, 0.8, 0.6))
        assert (found["lr"], found["n_seeds"]) == (0.2, 2)
        assert found["val_accuracy_mean"] == pytest.approx(0.75)
        assert found["test_accuracy_mean"] == pytest.approx(0.55)
        assert found["test_accuracy_std"] == pytest.approx(np.std([0.5, 0.6], ddof=1))
        assert found["lr_spread"] == pytest.approx(0.35)
        assert found["trained_fraction"] == 0.25

    def test_a_rate_that_diverged_in_one_seed_yields_to_one_that_never_did(self):
        found = chosen((0, 0.1, 0.5, 0.5), (1, 0.1, 0.5, 0.5), (0, 0.2, 0.9, 0.9), (1, 0.2, None, None))
        assert (found["lr"], found["n_seeds"], found["n_runs"], found["n_diverged"]) == (0.1, 2, 4, 1)

    def test_where_no_rate_finished_in_all_seeds_the_finished_ones_count(self):
        found = chosen((0, 0.1, 0.5, 0.4), (1, 0.1, None, None), (0, 0.2, None, None), (1, 0.2, 0.6, 0.5))
        assert (found["lr"], found["n_seeds"], found["n_diverged"]) == (0.2, 1, 2)
        assert np.isnan(found["test_accuracy_std"])

    def test_where_all_diverged_there_is_no_accuracy_but_a_count(self):
        found = chosen((0, 0.1, None, None), (1, 0.1, None, None))
        assert (found["n_seeds"], found["n_runs"], found["n_diverged"]) == (0, 2, 2)
        assert found[["lr", "val_accuracy_mean", "test_accuracy_mean", "lr_spread"]].isna().all()

    def test_of_equal_rates_the_smallest_is_taken(self):
        assert chosen((0, 0.2, 0.5, 0.1), (0, 0.1, 0.5, 0.2), (0, 0.3, 0.5, 0.3))["lr"] == 0.1

    def test_one_rate_has_no_spread(self):
        assert np.isnan(chosen((0, 0.1, 0.5, 0.5), (1, 0.1, 0.5, 0.6))["lr_spread"])


def test_the_front_is_what_nothing_cheaper_matches():
    rows = [("a", 1, 0.5), ("b", 2, 0.5), ("c", 2, 0.7), ("d", 3, 0.6), ("e", 4, 0.9), ("f", 4, 0.9), ("g", 1, None)]
    frame = pd.DataFrame(rows, columns=["component", "n_trained", "test_accuracy_mean"]).assign(model="m", dataset="d")
    other = frame.assign(dataset="e", n_trained=[3, 1, 9, 9, 9, 9, 9])
    found = analysis.on_front(pd.concat([frame, other], ignore_index=True), "n_trained")
    assert found[:7].tolist() == [True, False, True, False, True, True, False]
    assert found[7:].tolist() == [False, True, False, False, True, True, False]


def one_measurement(source_image, target_image):
    return pd.DataFrame({
        "model": "m", "dataset": "d", "component": "mha", "block": [0, 0, 0, 1, 1, 1], "pair": [0, 1, 2] * 2,
        "source_image": source_image * 2, "target_image": target_image * 2, "rate": [1.0, 2, 3, 3, 4, 8],
    })  # fmt: skip


def test_plasticity_is_the_mean_over_blocks_and_pairs_with_students_interval():
    rates = one_measurement([5, 0, 2], [1, 3, 0])
    blocks, mean = analysis.rates_by_block(rates, 0.95), analysis.plasticity_of(rates, 0.95).iloc[0]
    assert blocks["rate_mean"].tolist() == [2, 5]
    assert blocks["rate_std"].tolist() == pytest.approx([1, 7**0.5])
    assert blocks["n_pairs"].tolist() == [3, 3]
    assert blocks["ci_high"][0] == pytest.approx(2 + 4.302653 * 1 / 3**0.5)
    per_pair = [2, 3, 5.5]
    assert mean["plasticity"] == pytest.approx(3.5)
    assert mean["plasticity_ci_low"] == pytest.approx(3.5 - 4.302653 * np.std(per_pair, ddof=1) / 3**0.5)


@pytest.mark.parametrize("same_images", [False, True])
def test_intervals_of_plasticity_resample_images(same_images):
    rates = one_measurement([0, 0, 1], [2, 1, 2])
    blocks = analysis.rates_by_block(rates.sample(frac=1, random_state=0), 0.9, same_images=same_images)
    mean = analysis.plasticity_of(rates, 0.9, same_images=same_images).iloc[0]
    expected = image_interval([1, 2, 3], [0, 0, 1], [2, 1, 2], 0.9, same_images=same_images)
    assert blocks.loc[0, ["rate_mean", "ci_low", "ci_high"]].tolist() == pytest.approx(expected)
    expected = image_interval([2, 3, 5.5], [0, 0, 1], [2, 1, 2], 0.9, same_images=same_images)
    assert mean[["plasticity", "plasticity_ci_low", "plasticity_ci_high"]].tolist() == pytest.approx(expected)


def test_every_table_is_written_with_its_columns(written):
    assert {path.stem for path in written.folder.glob("*.parquet")} == STUDY_TABLES
    for name in STUDY_TABLES:
        assert list(vars(written)[name].columns) == schemas.columns(name), name
        about = tables.about(written.folder / f"{name}.parquet")
        assert (about["study"], about["stage"], about["rev"]) == ("synthetic", "correlate", 1)
        assert set(about["sources"]) == set(layout.TABLES_READ)


def test_the_rows_behind_the_summary_are_passed_on(written):
    cells = 3 * 4 * 2
    assert len(written.finetune) == cells * len(LRS)
    assert len(written.history) == written.finetune["steps_trained"].sum()
    assert len(written.probe) == 3
    assert len(written.rates_by_block) == 3 * 3 * 4
    assert len(written.shifted) == 4 * 2 * 2


def test_the_summary_joins_what_belongs_together(written):
    found = row(written.summary, dataset="a", component="mha")
    probe = row(written.probe, dataset="a")["accuracy"]
    full = row(written.summary, dataset="a", component="full")
    assert found["probe_accuracy"] == probe
    assert found["relative_gain"] == pytest.approx((found["test_accuracy_mean"] - probe) / probe)
    assert found["gap_to_full"] == pytest.approx(full["test_accuracy_mean"] - found["test_accuracy_mean"])
    assert pd.isna(found["gain_over_head"])  # no cell of `head`
    bounds = written.predictors.query("predictor == 'bound' and dataset == 'a' and component == 'mha'")
    assert found["bound"] == pytest.approx(bounds[bounds["block"].notna()]["value"].mean())
    assert found["plasticity"] == pytest.approx(
        written.rates_by_block.query("dataset == 'a' and component == 'mha'")["rate_mean"].mean()
    )
    assert found["plasticity_ci_low"] < found["plasticity"] < found["plasticity_ci_high"]
    shifted = written.shifted.query("component == 'mha'")["accuracy"].mean()
    assert found["shifted_accuracy_mean"] == pytest.approx(shifted)


def test_what_a_component_does_not_have_is_null(written):
    full = row(written.summary, dataset="b", component="full")
    assert all(pd.isna(full[name]) for name in ("plasticity", "plasticity_ci_low", "bound", "shifted_accuracy_mean"))
    assert full["gap_to_full"] == 0


def test_diverged_runs_are_counted(written):
    full, ln1 = (row(written.summary, dataset="c", component=c) for c in ("full", "ln1"))
    assert (full["n_runs"], full["n_diverged"], full["n_seeds"]) == (6, 1, 2)
    assert full["lr"] != 1e-1
    assert (ln1["n_runs"], ln1["n_diverged"]) == (6, 6)
    assert pd.isna(ln1["test_accuracy_mean"]) and pd.isna(ln1["relative_gain"])
    assert ln1["plasticity"] > 0


def test_a_component_that_diverged_ranks_last_and_has_no_mean(written):
    found = row(written.ranking, component="ln1")
    assert found["n_datasets"] == 3
    assert pd.isna(found["test_accuracy_mean"])
    assert written.ranking["rank_mean"].is_monotonic_increasing


def test_predictors_are_rows_whatever_stage_gave_them(written):
    table = written.predictors
    assert set(table["predictor"]) == {"plasticity", *PREDICTORS}
    for predictor, components in (("plasticity", 3), ("bound", 3), ("fisher", 4), ("parameters", 4)):
        whole = table[table["predictor"].eq(predictor) & table["block"].isna()]
        assert len(whole) == 3 * components and whole["value"].notna().all(), predictor
    assert len(table.query("predictor == 'plasticity'")) == 3 * 3 * (1 + 4)
    found = row(table[table["block"].isna()], predictor="plasticity", dataset="a", component="mha")
    known = row(written.summary, dataset="a", component="mha")
    for column, other in (("value", ""), ("ci_low", "_ci_low"), ("ci_high", "_ci_high")):
        assert found[column] == known[f"plasticity{other}"]
    assert found["n"] == 64
    first = row(table, predictor="plasticity", dataset="a", component="mha", block=0)
    assert first["value"] == row(written.rates_by_block, dataset="a", component="mha", block=0)["rate_mean"]
    files = row(table[table["block"].isna()], predictor="fisher", dataset="a", component="full")
    assert (files["n"], files["duration_s"]) == (64, 0.25)


def test_parameters_are_counted_from_the_runs_where_no_file_gives_them(results, written, tmp_path):
    run(tmp_path, *results.glob("finetune/m/a/*/*/runs.parquet"))
    table = pd.read_parquet(tmp_path / "predictors.parquet")
    assert set(table["predictor"]) == {"parameters"} and table["block"].isna().all()
    assert row(table, component="mha")["value"] == pytest.approx(np.log10(263_000 + 700))
    assert row(written.predictors, predictor="parameters", dataset="a", component="mha")["value"] == np.log10(263_000)


def test_parameters_of_the_head_are_no_parameters_of_a_component():
    trained = pd.DataFrame({"model": "m", "dataset": "d", "component": ["mha", "head"], "n_trained": [263_700, 700]})
    frames = {name: schemas.schema(name).empty_table().to_pandas() for name in ("predictors", "rates")}
    found = predictor_table.join(
        plasticity=analysis.plasticity_of(frames["rates"], 0.95),
        rates=analysis.rates_by_block(frames["rates"], 0.95),
        measured=frames["predictors"],
        runs=trained,
    )
    assert found[["component", "predictor", "value"]].values.tolist() == [["mha", "parameters", np.log10(263_000)]]


def test_gain_over_head_is_over_the_cells_of_head_on_the_same_dataset(tmp_path):
    grid = {"models": ["m"], "datasets": ["a", "b"], "components": ["mha", "head"], "seeds": [0]}
    run(tmp_path / "t", "--results", str(write_study(tmp_path / "r", **grid, steps=4, every=2)))
    summary = pd.read_parquet(tmp_path / "t/summary.parquet").set_index(["dataset", "component"])
    for dataset in ("a", "b"):
        mha, head = (summary.loc[(dataset, component)] for component in ("mha", "head"))
        assert mha["gain_over_head"] == mha["test_accuracy_mean"] - head["test_accuracy_mean"]
        assert head["gain_over_head"] == 0


def test_plasticity_of_ranges_and_masks_is_the_mean_of_their_blocks(tmp_path):
    finer = ["mha", "mha@1-2", "mha@3", "mha~7", "fc1@0", "lora4:mha", "mha+fc1"]
    results = write_study(tmp_path / "r", models=["m"], datasets=["a"], components=finer, seeds=[0], steps=4, every=2)
    run(tmp_path / "t", "--results", str(results))
    summary, rates = (pd.read_parquet(tmp_path / f"t/{name}.parquet") for name in ("summary", "rates_by_block"))
    blocks = rates.pivot(index="block", columns="component", values="rate_mean")
    known = {"mha@1-2": blocks["mha"].loc[1:2].mean(), "mha@3": blocks["mha"][3], "mha~7": blocks["mha"].mean()}
    known |= {"mha": blocks["mha"].mean(), "fc1": blocks["fc1"].mean(), "fc1@0": blocks["fc1"][0]}
    found = summary.set_index("component")
    assert found["plasticity"].dropna().to_dict() == pytest.approx(known)
    assert found.loc[["mha@1-2", "mha~7"], ["plasticity_ci_low", "plasticity_ci_high"]].isna().all(axis=None)
    table = pd.read_parquet(tmp_path / "t/predictors.parquet").query("predictor == 'plasticity' and block.isna()")
    assert set(table["component"]) >= known.keys()


def test_correlations_have_every_scope_predictor_and_statistic(written):
    scopes, pooled = 3 + 1 + 1, 1 + 1
    assert len(written.correlation) == 4 * (scopes * 3 + pooled) + 3 * scopes  # relative gain; given parameters
    assert set(written.correlation["predictor"]) == {"plasticity", *PREDICTORS}
    plastic = written.correlation.query(
        "predictor == 'plasticity' and outcome == 'accuracy' and statistic == 'pearson'"
    )
    on_c = row(plastic, scope="dataset", dataset="c")
    assert on_c["n"] == 2 and pd.isna(on_c["estimate"])  # ln1 diverged there, and two points have no correlation
    pooled = row(plastic, scope="all")
    assert (pooled["n"], pooled["n_blocks"]) == (8, 3)
    assert pd.isna(pooled["model"])
    wide = written.summary.query("component != 'full'").dropna(subset=["test_accuracy_mean"])
    centred = [wide[c] - wide.groupby("dataset")[c].transform("mean") for c in ("plasticity", "test_accuracy_mean")]
    assert pooled["estimate"] == pytest.approx(np.corrcoef(*centred)[0, 1])


def test_regret_charges_what_diverged_and_compares_rules(written):
    on_c = written.regret.query("scope == 'dataset' and dataset == 'c'").set_index("rule")
    accuracy = written.summary.query("dataset == 'c'").set_index("component")["test_accuracy_mean"].drop("full")
    assert on_c.loc["always-ln1", "regret"] == pytest.approx(accuracy.max() - accuracy.min())
    assert on_c.loc["always-ln1", "n_diverged"] == 1 and pd.isna(on_c.loc["always-ln1", "test_accuracy"])
    assert on_c.loc["always-mha", "test_accuracy"] == accuracy["mha"]
    rules = {"plasticity", *PREDICTORS, "validation", "random", "always-mha", "always-fc1", "always-ln1"}
    assert set(written.regret["rule"]) == rules
    assert len(written.differences) == 2 * 6 * 3  # two pooled scopes, pairs of predictors, statistics


def test_tests_pair_by_dataset(written):
    found = row(written.tests, outcome="accuracy", component_a="mha", component_b="full")
    wide = written.summary.pivot(index="dataset", columns="component", values="test_accuracy_mean")
    assert found["n_datasets"] == 3
    assert found["mean_difference"] == pytest.approx((wide["mha"] - wide["full"]).mean())
    assert row(written.tests, outcome="accuracy", component_a="ln1", component_b="full")["n_datasets"] == 2


def test_rows_follow_the_grid_and_the_vocabulary(results, tmp_path):
    run(tmp_path, "--results", results, "--grid", json.dumps(SMALL | {"datasets": ["c", "a"]}))
    summary = pd.read_parquet(tmp_path / "summary.parquet")
    assert summary["dataset"].tolist() == ["c"] * 4 + ["a"] * 4
    assert summary["component"].tolist() == ["ln1", "mha", "fc1", "full"] * 2


def test_without_a_grid_everything_finished_is_read(results, written, tmp_path):
    run(tmp_path, "--results", results)
    for name, frame in frames(tmp_path).items():
        keys = [c for c in frame.columns if not frame[c].isna().any()]
        pd.testing.assert_frame_equal(
            frame.sort_values(keys, ignore_index=True),
            vars(written)[name].sort_values(keys, ignore_index=True),
            check_dtype=False,
        )


def test_any_list_of_files_will_do(results, tmp_path):
    run(tmp_path, *results.glob("finetune/m/a/mha/*/runs.parquet"), *results.glob("plasticity/m/a/*.parquet"))
    summary = pd.read_parquet(tmp_path / "summary.parquet")
    assert summary["component"].tolist() == ["ln1", "mha", "fc1"]
    assert summary["n_runs"].tolist() == [0, 6, 0]
    assert summary["test_accuracy_mean"].notna().tolist() == [False, True, False]


@pytest.mark.parametrize("stage", list(layout.TABLES_READ))
def test_one_stage_alone_is_enough(results, tmp_path, stage):
    run(tmp_path, *inputs.finished(results)[stage])
    written = frames(tmp_path)
    assert set(written) == STUDY_TABLES
    for name, frame in written.items():
        assert pq.read_schema(tmp_path / f"{name}.parquet").types[: len(frame.columns)] == schemas.schema(name).types


def test_plasticity_of_models_that_are_not_fine_tuned(tmp_path):
    grid = SMALL | {"plasticity_models": ["m", "larger"]}
    results = write_study(tmp_path / "r", **grid, lrs=LRS, steps=5, every=5)
    run(tmp_path / "t", "--results", results, "--grid", json.dumps(grid))
    summary = pd.read_parquet(tmp_path / "t/summary.parquet")
    assert summary.groupby("model")["n_runs"].sum().to_dict() == {"m": 72, "larger": 0}
    assert set(pd.read_parquet(tmp_path / "t/ranking.parquet")["model"]) == {"m"}


def test_the_pages_are_escaped_and_labelled(results, tmp_path):
    nasty = "<script>alert('x')</script>&"
    grid = {"models": ["m"], "datasets": ["d"], "components": ["mha", "mha+fc1", "embed"], "seeds": [0]}
    write_study(tmp_path / "r", **grid, lrs=LRS, steps=5, every=5, study=nasty)
    run(tmp_path / "t", "--results", tmp_path / "r", study=nasty)
    assert {path.stem for path in (tmp_path / "t").glob("*.html")} == {*layout.PAGES, "answer"}
    for path in (tmp_path / "t").glob("*.html"):
        assert "<script>alert" not in path.read_text() and "&lt;script&gt;" in path.read_text()
    page = (tmp_path / "t/summary.html").read_text()
    assert '<td class="text">MHA+FC1</td>' in page and ">nan" not in page.lower()


def test_the_same_input_gives_the_same_files(results, tmp_path):
    for name in ("one", "two"):
        run(tmp_path / name, "--results", results)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def changed(path, target, **about):
    """A copy of a table with other metadata."""
    table = pq.read_table(path, partitioning=None)
    tables.write_table(target, table, tables.about(path) | about)
    return target


def test_missing_files_of_the_grid_are_named_and_counted(results, tmp_path):
    with pytest.raises(
        cli.InputError, match=r"^12 of the grid's 33 files are missing, the first: .*m/a/mha/seed=7/runs"
    ):
        run(
            tmp_path,
            "--results",
            results,
            "--grid",
            json.dumps(SMALL | {"seeds": [0, 7], "components": ["mha", "fc1"]}),
        )


REFUSED = {
    "not JSON": ("{", "not JSON"),
    "not an object": ("[]", "must be a JSON object"),
    "an unknown key": (json.dumps(SMALL | {"lrs": [1]}), "unknown key 'lrs'; choose from models"),
    "an empty list": (
        json.dumps(SMALL | {"datasets": []}),
        r"datasets must be a list of one or more strings, got \[\]",
    ),
    "a missing list": ('{"models": ["m"]}', "datasets must be a list"),
    "a string for a seed": (json.dumps(SMALL | {"seeds": ["0"]}), "seeds must be a list of one or more whole numbers"),
    "an unknown component": (json.dumps(SMALL | {"components": ["attn"]}), "unknown component 'attn'; choose from ln1"),
    "a list of evaluations": (json.dumps(SMALL | {"evaluate_on": ["a"]}), "evaluate_on must be like"),
}


@pytest.mark.parametrize(("grid", "message"), REFUSED.values(), ids=REFUSED)
def test_a_malformed_grid_is_refused(results, tmp_path, grid, message):
    with pytest.raises(cli.InputError, match=message):
        run(tmp_path, "--results", results, "--grid", grid)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"confidence": 1.0}, "analysis.confidence: got 1.0; must be less than 1"),
        ({"bootstrap": 0}, "analysis.bootstrap: got 0; must be at least 1"),
        ({"permutations": -1}, "analysis.permutations: got -1; must be at least 1"),
        ({"level": 0.9}, "analysis.level: unknown key; allowed: bootstrap, confidence"),
    ],
)
def test_malformed_parameters_are_refused(results, tmp_path, params, message):
    with pytest.raises(cli.InputError, match=message):
        correlate.main(["--results", str(results), "--output", str(tmp_path), "--params", json.dumps(params)])


def test_input_that_cannot_be_meant_is_refused(results, tmp_path):
    runs = results / "finetune/m/a/mha/seed=0/runs.parquet"
    rates = results / "plasticity/m/a/mha.parquet"
    for seed, steps in ((0, 10), (1, 9)):
        path = f"finetune/m/a/mha/seed={seed}/runs.parquet"
        changed(results / path, tmp_path / "mixed" / path, settings={"steps": steps, "batch_size": 64})
    cases = [
        ([], "name either --results"),
        (["--results", results, runs], "name either --results"),
        (["--grid", json.dumps(SMALL), runs], "--grid goes with --results"),
        (["--results", tmp_path], "nothing is finished below"),
        ([runs, runs], r"finetune: more than one row for .*'seed': 0"),
        ([rates, rates], "rates_by_block: more than one row for"),
        ([runs, changed(runs, tmp_path / "rev.parquet", rev=2)], "different rev"),
        ([rates, changed(rates, tmp_path / "rev2.parquet", rev=2)], "plasticity: tables of different rev"),
        (
            ["--results", tmp_path / "mixed"],
            r"finetune: tables of different settings .*seed=1/runs.parquet: {.steps.: 9}",
        ),
        ([changed(runs, tmp_path / "study.parquet", study="other")], "of study 'other', but --study says 'synthetic'"),
        (
            [changed(runs, tmp_path / "stage.parquet", stage="pretrain")],
            "a table of stage 'pretrain'; only those of plasticity",
        ),
    ]
    for arguments, message in cases:
        with pytest.raises(cli.InputError, match=message):
            run(tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_a_table_without_a_column_is_refused(results, tmp_path):
    path = results / "finetune/m/a/mha/seed=0/runs.parquet"
    table = pq.read_table(path, partitioning=None).drop_columns("outcome")
    tables.write_table(tmp_path / "x.parquet", table, tables.about(path))
    with pytest.raises(cli.InputError, match="finetune: column 'outcome' is missing"):
        run(tmp_path / "out", tmp_path / "x.parquet")
    with pytest.raises(cli.InputError, match="another type"):
        schemas.conform(pa.table({name: ["x"] for name in schemas.columns("probe")}), "probe")


def test_the_command_imports_no_torch_and_exits_with_a_message(results, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "vit_plasticity.correlate", "--output", tmp_path / "t"]
    done = subprocess.run([*command, "--results", results, "--study", "synthetic"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "24 cells, 72 runs, of which 9 diverged" in done.stdout
    assert "torch" not in done.stderr and "matplotlib" not in done.stderr
    refused = subprocess.run([sys.executable, *command[3:]], capture_output=True, text=True)
    assert refused.returncode == 2
    assert (
        refused.stderr.startswith("vit_plasticity.correlate: error: name either") and "Traceback" not in refused.stderr
    )


def test_the_demo_grid_is_complete(tmp_path):
    files = inputs.of_grid(write_study(tmp_path, **DEMO, steps=2, every=1, pairs=2), DEMO)
    assert {stage: len(paths) for stage, paths in files.items()} == {
        "plasticity": 20, "measure": 0, "probe": 4, "finetune": 48, "history": 48, "evaluate": 0,
    }  # fmt: skip


def test_components_that_tie_stand_in_one_cell_of_a_page():
    table = pa.table({"component": ["ln1, mha+fc1", "fc2"]})
    assert '<td class="text">LN1, MHA+FC1</td>' in html_table.page(table, "regret", "")
