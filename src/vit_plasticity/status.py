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
import yaml

from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import config as studies
from vit_plasticity.study import grid

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


def load_config(files):
    """The configuration that Snakemake sees: the files laid over each other (maps merge, lists replace)."""
    merged = {}
    for file in files:
        try:
            loaded = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error
        if not isinstance(loaded, dict):
            raise InputError(f"{file} must hold a map of keys, got {loaded!r:.80}")
        studies.refuse_repeated_keys(file)
        _merge(merged, loaded)
    return merged


def _merge(base, over):
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def rerun_command(configfiles, directory, wanted):
    """The Snakemake command that runs what is not done: everything, or with `wanted` (paths) these cells alone."""
    where = ["--directory", str(directory)] if directory != Path() else []
    command = ["snakemake", "--cores", "all", "--keep-going", "--rerun-incomplete", *where, *wanted]
    return shlex.join(command + (["--configfile", *configfiles] if configfiles else []))


def main(argv=None):
    parser = cli.parser("status", __doc__)
    parser.add_argument(
        "--configfile", nargs="+", default=[], help="study laid over config.yaml, as given to snakemake"
    )
    parser.add_argument("--state", choices=("done", "diverged", *NOT_DONE), help="list the cells in this state alone")
    parser.add_argument("--directory", type=Path, default=Path(), help="where Snakemake works (default: here)")
    args = parser.parse_args(argv)
    root = Path(__file__).parents[2]
    config = studies.resolve(load_config([root / "config.yaml", *args.configfile]))
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
