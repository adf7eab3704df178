"""The front page: every statement follows from the tables, and says what they do not show."""

import json
from pathlib import Path

import chromium
import pandas as pd
import pytest
from synthetic_study import DEMO, write_study

from vit_plasticity import correlate
from vit_plasticity.analysis import answer, dictionary, matrix, schemas

ROOT = Path(__file__).parents[3]
SOURCES = {"probe": {"provenance": [{"git_commit": "0123456789abcdef", "git_dirty": False}]}}


def diverging(component, lr, seed, dataset, **_):
    return (component == "fc2" and lr > 0.02 and seed == 1) or (component == "ln1" and "contrast" in dataset)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answer")
    write_study(folder / "r", **DEMO, steps=4, every=2, pairs=4, predictors=["fisher"], diverges=diverging)
    params = json.dumps({"bootstrap": 50, "permutations": 50})
    correlate.main(["--study", "synthetic", "--params", params, "--results", f"{folder}/r", "--output", f"{folder}/t"])
    return folder / "t"


@pytest.fixture(scope="module")
def tables(folder):
    return {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}


def text_of(tables, **changes):
    found = answer.sections(tables | changes, SOURCES, "synthetic", "snakemake --cores all")
    return {heading: " ".join(words) for heading, words in found}


def test_the_answer_names_the_best_and_how_far_it_is_from_full(tables):
    words = text_of(tables)["Answer"]
    ranking = tables["ranking"].set_index("component")
    best = ranking.drop(index=["full", "ln1"])["rank_mean"].idxmin()
    gap = 100 * (ranking.at["full", "test_accuracy_mean"] - ranking.at[best, "test_accuracy_mean"])
    assert words.startswith(f"vit_mini: {best.upper()} came first of 5 single components")
    assert f"{100 * ranking.at[best, 'test_accuracy_mean']:.1f} %" in words
    assert f"That is {gap:.1f} points below full fine-tuning" in words


def test_a_component_above_full_is_said_to_be_above(tables):
    ranking = tables["ranking"].copy()
    ranking.loc[ranking["component"] == "full", "test_accuracy_mean"] = 0.1
    assert "points above full fine-tuning (10.0 %)" in text_of(tables, ranking=ranking)["Answer"]


@pytest.mark.parametrize(
    ("accuracy", "words"), [(0.05, "points less."), (0.99, "points more: this component was not worth")]
)
def test_the_best_is_compared_with_the_probe(tables, accuracy, words):
    found = text_of(tables, summary=tables["summary"].assign(probe_accuracy=accuracy))["Answer"]
    assert f"A linear probe on the frozen model has {100 * accuracy:.1f} %," in found and words in found
    equal = tables["summary"].assign(probe_accuracy=tables["summary"]["test_accuracy_mean"])
    assert "as much: this component was not worth training here." in text_of(tables, summary=equal)["Answer"]


def test_learning_rates_at_an_end_of_the_list_are_counted(tables):
    """Three rates are tried; two, of which each is an end, would say nothing."""
    trained = tables["summary"].query("n_runs > 0 and lr.notna()")
    n = int((trained["lr"] != 0.01).sum())
    words = f"In {n} of {len(trained)} cases the learning rate chosen is the smallest or the largest"
    assert n and words in text_of(tables)["Study"]
    middle = tables["summary"].assign(lr=tables["summary"]["lr"].where(tables["summary"]["lr"].isna(), 0.01))
    assert "the learning rate chosen" not in text_of(tables, summary=middle)["Study"]
    two = tables["finetune"].query("lr != 0.01")
    assert "the learning rate chosen" not in text_of(tables, finetune=two)["Study"]


def test_prediction_is_told_with_interval_p_and_n(tables):
    words = text_of(tables)["Could it be known before?"]
    one = tables["correlation"].query(
        "predictor == 'plasticity' and scope == 'all' and outcome == 'accuracy' and statistic == 'spearman'"
    )
    one = one.iloc[0]
    assert (
        f"within datasets {one['estimate']:.2f} [{one['ci_low']:.2f}, {one['ci_high']:.2f}]".replace("-", "−") in words
    )
    assert f"n = {one['n']}" in words and "given the number of parameters" in words
    rules = tables["regret"].query("scope == 'all'").set_index("rule")["regret"]
    assert f"random {100 * rules['random']:.1f} points" in words


def test_what_permutations_give_as_well_is_called_not_shown(tables):
    for p_value, words in ((0.5, "not shown"), (0.001, "More than permutations give")):
        found = text_of(tables, correlation=tables["correlation"].assign(p_value=p_value))
        assert words in found["Could it be known before?"]


def test_failures_are_counted(tables):
    words = text_of(tables)["What failed"]
    assert words.startswith("10 runs of 144 diverged: LN1 6, FC2 4.")
    assert "No learning rate worked for LN1 on digits_c_contrast_5" in words
    calm = tables["finetune"].assign(outcome="finished")
    assert (
        "None of 144 runs diverged."
        in text_of(tables, finetune=calm, summary=tables["summary"].assign(n_diverged=0))["What failed"]
    )


def test_size_limits_and_commit_are_told(tables):
    words = text_of(tables)
    assert "1 model, 4 datasets, 6 components trained, 2 seeds, 3 learning rates; 48 cells, 144 runs" in words["Study"]
    assert "One model says nothing" in words["Study"] and "With 4 datasets" in words["Study"]
    again = words["How to make it again"]
    assert "commit 0123456789." in again and "The study: snakemake --cores all The tables" in again
    small = "takes images of 32 pixels, but those of digits, digits_c_contrast_5"
    assert small in words["Study"] and "shorter sides of 8, and enlarged." in words["Study"]
    assert small not in text_of(tables, probe=tables["probe"].assign(stored_side=32.0))["Study"]


def test_without_rows_it_says_so():
    empty = {name: schemas.schema(name).empty_table().to_pandas() for name in schemas.COLUMNS}
    words = text_of(empty)
    assert words["Answer"] == "Nothing has been fine-tuned yet."
    assert words["What it cost"] == "Nothing was trained."
    assert matrix.to_csv(matrix.matrices(empty["summary"], empty["ranking"])).startswith("model,component")


def test_the_matrix_is_the_summary(tables, folder):
    (frame,) = matrix.matrices(tables["summary"], tables["ranking"]).values()
    one = tables["summary"].query("dataset == 'digits' and component == 'mha'").iloc[0]
    words, _ = frame.at["mha", "digits"]
    assert words == f"{100 * one['test_accuracy_mean']:.1f} ± {100 * one['test_accuracy_std']:.1f}"
    assert frame.at["ln1", "digits_c_contrast_5"] == ("diverged", False) and frame.at["ln1", "mean"][0] == "–"
    assert [best for _, best in frame["digits"]].count(True) == 1
    assert list(frame.index)[:1] == [tables["ranking"]["component"].iloc[0]]
    latex = (folder / "accuracy.tex").read_text()
    assert r"\toprule" in latex and r"digits\_c\_contrast\_5" in latex and r"\textbf{" in latex
    lines = (folder / "accuracy.csv").read_text().splitlines()
    assert lines[0].startswith("model,component,digits") and len(lines) == 7


def test_every_column_is_described_and_the_page_is_up_to_date():
    lists = {name: schemas.columns(name) for name in schemas.COLUMNS}
    assert {column for names in lists.values() for column in names} == set(dictionary.COLUMNS)
    assert (ROOT / "docs/columns.md").read_text(encoding="utf-8") == dictionary.page(lists)


@chromium.needed
@pytest.mark.parametrize("page", ["answer", "summary", "regret"])
def test_pages_open_from_disk_without_an_error_and_sort(folder, tmp_path, page):
    text = (folder / f"{page}.html").read_text(encoding="utf-8")
    clicks = """
      const table = document.querySelector("table"), head = table.querySelector("thead th");
      const column = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
      head.click(); const up = column(); head.click(); const down = column();
      document.title = JSON.stringify({up, down});"""
    seen = chromium.what_is_seen(text, clicks, tmp_path)
    assert seen["up"] == sorted(seen["up"], key=str.lower) and seen["down"] == sorted(seen["up"], key=str.lower)[::-1]
    assert "http" not in text.replace("http-equiv", "")
