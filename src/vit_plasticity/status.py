"""Which cells of a study are done, diverged, failed or missing, and the command that runs what is not done.

    python -m vit_plasticity.status                                             the default study
    python -m vit_plasticity.status --configfile workflow/studies/paper.yaml    another one

A cell is *done* when all its files are there; *diverged* when they are, but no learning rate gave a finite loss;
*failed* when its log tells of no success and there is no result (or it still runs); *missing* otherwise. Only reads.
"""

import collections
import shlex
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vit_plasticity.runtime import cli
from vit_plasticity.study import config as studies
from vit_plasticity.study import grid, loading

COMPLETE = "complete: "
"""How the log of a cell that succeeded ends (see `vit_plasticity.finetune`)."""
NOT_DONE = ("failed", "missing")


def cell_state(results, logs, cell):
    """(state, remark) of one cell; the remark of a failed one is the last line of its log.

    results, logs: folders of the study; cell: dict of model, dataset, component, seed.
    """
    runs = results / grid.PATHS["finetune"].format(**cell)
    if all(runs.with_name(name).is_file() for name in grid.RUN_FILES.values()):
        try:
            outcomes = pq.read_table(runs, partitioning=None)["outcome"].to_pylist()
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            return "failed", f"runs.parquet cannot be read, delete it: {error}"
        diverged = outcomes.count("diverged")
        remark = f"{diverged} of {len(outcomes)} runs diverged" if diverged else ""
        return ("diverged" if diverged == len(outcomes) else "done"), remark
    log = logs / "finetune" / f"{grid.CELL.format(**cell)}.log"
    if not log.is_file():
        return "missing", ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if lines and lines[-1].startswith(COMPLETE):
        return "missing", "it was complete once; its files were removed"
    return "failed", lines[-1] if lines else "its log is empty: it was stopped, or is running"


def rerun_command(configfiles, directory, wanted):
    """The Snakemake command that runs what is not done: everything, or with `wanted` (paths) these cells alone."""
    where = ["--directory", str(directory)] if directory != Path() else []
    command = ["snakemake", "--cores", "all", "--keep-going", "--rerun-incomplete", *where, *wanted]
    return shlex.join(command + (["--configfile", *configfiles] if configfiles else []))


def main(argv=None):
    parser = cli.parser("status", __doc__)
    parser.add_argument(
        "--configfile", nargs="+", default=[], help="files of the study, as given to snakemake (default: config.yaml)"
    )
    parser.add_argument("--state", choices=("done", "diverged", *NOT_DONE), help="list the cells in this state alone")
    parser.add_argument("--directory", type=Path, default=Path(), help="where Snakemake works (default: here)")
    args = parser.parse_args(argv)
    config = studies.resolve(loading.load(args.configfile))
    results, logs = args.directory / "results" / config["study"], args.directory / "logs" / config["study"]
    counts, failed = collections.Counter(), []
    for cell in grid.cells(config):
        state, remark = cell_state(results, logs, cell)
        counts[state] += 1
        name = grid.CELL.format(**cell)
        if state == "failed":
            failed.append(f"results/{config['study']}/{grid.PATHS['finetune'].format(**cell)}")
        if args.state in (None, state):
            print(f"{state:9}{name}{remark and '  ' + remark}")
    print(
        f"\n{config['study']}: {counts.total()} cells, "
        + ", ".join(f"{counts[s]} {s}" for s in ("done", "diverged", *NOT_DONE))
    )
    if any(counts[state] for state in NOT_DONE):
        print(f"run what is not done:  {rerun_command(args.configfile, args.directory, [])}")
    if failed:
        print(f"one failed cell alone: {rerun_command(args.configfile, args.directory, failed[:1])}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
