"""The smoke study, run for real: what it makes, what a second call makes, and that its numbers repeat."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import chromium
import duckdb
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest
import yaml
from kills import workers_of
from one_cell import wait_for
from processes import (
    command,
    differences,
    jobs_run,
    remove,
    smoke_config,
    snakemake,
    temporary_files,
)

from vit_plasticity.study.grid import FIGURES, PAGES, PATHS, TABLES

CELL = Path("finetune", "vit_smoke", "digits", "mha", "seed=0")


def results(study):
    return study / "results" / "smoke"


def test_everything_is_made(smoke):
    tables, figures = results(smoke) / "tables", results(smoke) / "figures"
    assert {f.stem for f in tables.glob("*.parquet")} == set(TABLES)
    assert {f.stem for f in tables.glob("*.html")} == {*PAGES, "answer"}
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        files = {f.stem: f.read_bytes() for f in figures.glob(f"*.{kind}")}
        assert files.keys() == set(FIGURES)
        assert all(content.startswith(start) for content in files.values())
    assert len([*results(smoke).glob("finetune/*/*/*/*/runs.parquet")]) == 8


def test_the_front_page_says_how_to_make_it_again(smoke):
    page = (results(smoke) / "tables" / "answer.html").read_text(encoding="utf-8")
    assert re.search(r"The study: snakemake --cores all --configfile \S+smoke.yaml<", page)


def test_pandas_reads_a_file_a_list_of_files_and_a_folder(smoke):
    """A cell's path has seed=0, and its files a column of that name: hence partitioning, as the README says."""
    cells = sorted(results(smoke).glob("finetune/*/*/*/*/runs.parquet"))
    together = pd.read_parquet(cells, partitioning=None)
    assert together.equals(pd.concat(map(pd.read_parquet, cells), ignore_index=True))
    assert set(together["seed"]) == {0, 1} and together["seed"].dtype == int
    measured = pd.read_parquet(results(smoke) / "plasticity")
    assert set(measured["component"]) == {"mha", "ln1"}


@pytest.mark.parametrize("kind", ["file", "files", "folder"])
def test_polars_and_duckdb_read_what_pandas_reads(smoke, kind):
    cells = list(map(str, sorted(results(smoke).glob("finetune/*/*/*/*/runs.parquet"))))
    every = str(results(smoke) / "finetune" / "**" / "runs.parquet")
    given = {"file": cells[0], "files": cells, "folder": every}[kind]
    expected = pd.read_parquet(cells[:1] if kind == "file" else cells, partitioning=None)
    keys = ["dataset", "component", "seed", "lr"]
    for table in (polars.read_parquet(given).to_dicts(), duckdb.read_parquet(given).to_arrow_table().to_pylist()):
        found = pd.DataFrame(table).sort_values(keys)
        assert found["seed"].dtype == int
        for column in (*keys, "test_accuracy"):
            assert list(found[column]) == list(expected.sort_values(keys)[column])


@chromium.needed
def test_the_report_shows_every_figure_and_page_without_an_error(study, tmp_path):
    snakemake(study, "--report", tmp_path / "report.html")
    look = """
      const shown = Object.values(results), figures = shown.filter(one => one.mime_type.startsWith("image/"));
      const width = figure => new Promise(done => {
        const image = new Image();
        image.onload = image.onerror = () => done([figure.name, image.naturalWidth]);
        image.src = figure.data_uri;
      });
      const widths = Object.fromEntries(await Promise.all(figures.map(width)));
      document.title = JSON.stringify({widths, names: shown.map(one => one.name), text: document.body.innerText});"""
    seen = chromium.what_is_seen((tmp_path / "report.html").read_text(encoding="utf-8"), look, tmp_path)
    assert seen["widths"].keys() == {f"{name}.png" for name in FIGURES} and min(seen["widths"].values()) > 500
    assert {f"{name}.html" for name in PAGES} <= set(seen["names"])
    assert "Could it be known before?" in seen["text"]


def test_nothing_half_written_or_left_over_remains(smoke):
    assert not temporary_files(smoke / "results")
    assert not [f for f in (smoke / "resources").rglob(".*") if not f.name.startswith(".snakemake_timestamp")]


def test_every_job_has_a_log(smoke):
    logs = [log for log in (smoke / "logs").rglob("*.log") if "slurm" not in log.parts]
    assert len(logs) == 24


def test_second_call_has_nothing_to_do(smoke):
    assert "Nothing to be done" in snakemake(smoke).stdout


def test_from_scratch_again_the_tables_are_equal(smoke, tmp_path):
    """In a folder whose name would trip a careless shell command, and on one core."""
    folder = tmp_path / 'it\'s a "new" $(touch pwned) folder; #1'
    snakemake(folder, "--cores", "1")
    assert not differences(folder, smoke)
    assert not [*tmp_path.rglob("pwned")]


def test_deleted_cell_is_made_again_alone(study, smoke):
    remove(results(study) / CELL)
    done = snakemake(study)
    assert jobs_run(done.stdout) == {"correlate": 1, "evaluate": 1, "finetune": 1, "plots": 1}
    log = (study / "logs" / "smoke" / f"{CELL}.log").read_text()
    assert len(re.findall("outcome=finished", log)) == 2  # trained, not brought back
    assert not differences(study, smoke)


def test_failed_cells_leave_the_others_to_finish_and_are_made_again_alone(study, smoke):
    """A dataset that lost a file: its cells and evaluations on it fail at the first line, the others do not care."""
    remove(results(study) / CELL)
    lost = study / "resources" / "datasets" / "digits_c_contrast_5" / "train.pixels"
    lost.rename(study / "lost")
    changed = smoke_config(overrides={"digits_c_contrast_5": {"finetune": {"evaluation_period": 1}}})
    done = snakemake(study, config=changed, check=False)
    assert done.returncode != 0
    assert jobs_run(done.stdout) == {"finetune": 1}
    assert (results(study) / CELL / "runs.parquet").exists()
    assert not [*results(study).glob("finetune/vit_smoke/digits_c_contrast_5/*/*/*.parquet")]
    log = study / "logs" / "smoke" / "finetune" / "vit_smoke" / "digits_c_contrast_5" / "mha" / "seed=0.log"
    assert "error: resources/datasets/digits_c_contrast_5" in log.read_text()
    assert "Traceback" not in log.read_text()

    (study / "lost").rename(lost)
    done = snakemake(study)
    assert jobs_run(done.stdout) == {"correlate": 1, "evaluate": 1, "finetune": 4, "plots": 1}
    assert not differences(study, smoke)


@pytest.mark.skipif(sys.platform != "linux", reason="there is a warm worker on Linux only")
def test_without_the_warm_worker_the_numbers_are_the_same(study, smoke):
    """The worker is killed as soon as it is there: every job then runs in a process of its own."""
    paths = [PATHS[stage] for stage in ("finetune", "evaluate", "plasticity", "probe", "measure")]
    keys = {"model": "vit_smoke", "dataset": "digits", "component": "mha", "seed": 0, "predictor": "gradient_norm"}
    targets = [f"results/smoke/{path.format(**keys)}" for path in paths]
    for target in targets:
        remove(study / target)
    words = command(study, *targets, "--retries", "1")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(lambda: process.poll() is not None or workers_of(process.pid))
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert jobs_run(said) == dict.fromkeys(("evaluate", "finetune", "measure", "plasticity", "probe"), 1)
    assert not differences(study, smoke)


def test_diverged_runs_are_an_outcome(study, smoke):
    """Absurd rates and decay: all runs of one dataset diverge, one of two of the other; tables and figures say so."""
    overrides = {"digits": {"finetune": {"lrs": [900.0, 1000.0]}}}
    config = smoke_config(finetune__weight_decay=1000.0, finetune__lrs=[1e-4, 1e3], seeds=[0], overrides=overrides)
    done = snakemake(study, config=config)
    assert jobs_run(done.stdout) == {"correlate": 1, "evaluate": 2, "finetune": 4, "plots": 1}

    summary = pq.read_table(results(study) / "tables" / "summary.parquet").to_pylist()
    for row in summary:
        all_diverged = row["dataset"] == "digits"
        assert (row["n_runs"], row["n_diverged"]) == ((2, 2) if all_diverged else (2, 1))
        assert (row["test_accuracy_mean"] is None) is all_diverged
        assert (row["lr"] is None) is all_diverged
    runs = pq.read_table(results(study) / "tables" / "finetune.parquet").to_pylist()
    for row in (r for r in runs if r["outcome"] == "diverged"):
        assert row["test_accuracy"] is None
        assert row["steps_trained"] < row["steps"]
        assert not row["chosen"]
    history = pq.read_table(results(study) / "tables" / "history.parquet").to_pandas()
    assert {len(h) for _, h in history[history.lr >= 900].groupby(["dataset", "component", "lr"])} <= set(range(1, 11))
    assert len([*(results(study) / "figures").glob("*.png")]) == len(FIGURES)

    said = status(study, config)
    assert said.count("diverged vit_smoke/digits/") == 2
    assert said.count("2 of 2 runs diverged") == 2
    assert said.count("1 of 2 runs diverged") == 2
    assert "smoke: 4 cells, 2 done, 2 diverged, 0 failed, 0 missing" in said


def status(study, config):
    file = study.parent / "status.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "vit_plasticity.status", "--directory", study, "--configfile", file]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_pandas_reads_a_file_and_the_files_of_many_cells(smoke):
    """The partition that `seed=0` in a path looks like has the name of a column that the files have."""
    files = sorted((smoke / "results" / "smoke").glob("finetune/**/runs.parquet"))
    whole = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    pd.testing.assert_frame_equal(pd.read_parquet(files, partitioning=None), whole)
    assert set(whole["seed"]) == {0, 1}
    for file in (smoke / "results" / "smoke" / "tables").glob("*.parquet"):
        assert len(pd.read_parquet(file).columns) > 2
