"""What has become of a study's cells, read from their files; nothing is changed. No torch, no pandas."""

import json
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vit_plasticity.runtime import locks
from vit_plasticity.study import config as studies
from vit_plasticity.study import grid

STATES = ("done", "diverged", "running", "stale", "failed", "missing")
NOT_DONE = ("stale", "failed", "missing")
COMPLETE = "complete: "
"""How the log of a cell that succeeded ends (see `vit_plasticity.finetune`)."""


def of_cell(config, results, logs, cell):
    """(state, remark) of one cell; the remark of a failed one is the last line of its log.

    results, logs: folders of the study; cell: dict of model, dataset, component, seed.
    """
    runs = results / grid.PATHS["finetune"].format(**cell)
    if locks.held(runs.with_suffix(".lock")):
        return "running", ""
    if all(runs.with_name(name).is_file() for name in grid.RUN_FILES.values()):
        return _finished(runs, studies.stage_settings(config, "finetune", cell["dataset"], cell["model"]))
    log = logs / "finetune" / f"{grid.CELL.format(**cell)}.log"
    if not log.is_file():
        return "missing", ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if lines and lines[-1].startswith(COMPLETE):
        return "missing", "it was complete once; its files were removed"
    return "failed", lines[-1] if lines else "its log is empty: it was stopped, or waits"


def _finished(runs, wanted):
    """State and remark of a cell whose files are there; wanted: the settings that the study asks for."""
    try:
        table = pq.read_table(runs, partitioning=None)
        outcomes = table["outcome"].to_pylist()
        made_with = json.loads(table.schema.metadata[b"vit_plasticity"]).get("settings") or {}
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowInvalid) as error:
        return "failed", f"runs.parquet cannot be read, delete it: {error}"
    other = [key for key in wanted if made_with.get(key) != wanted[key]]
    if other:
        changes = (f"{key} {made_with.get(key)}, not {wanted[key]}" for key in other)
        return "stale", f"made with {'; '.join(changes)}"
    diverged = outcomes.count("diverged")
    remark = f"{diverged} of {len(outcomes)} runs diverged" if diverged else ""
    return ("diverged" if diverged == len(outcomes) else "done"), remark


def rerun_command(configfiles, directory, wanted):
    """The Snakemake command that runs what is not done: everything, or with `wanted` (paths) these cells alone."""
    where = ["--directory", str(directory)] if directory != Path() else []
    command = ["snakemake", "--cores", "all", "--keep-going", "--rerun-incomplete", *where, *wanted]
    return shlex.join(command + (["--configfile", *configfiles] if configfiles else []))
