"""Which cells of a study are done, diverged, failed or missing, and the command that runs what is not done.

    python -m vit_plasticity.status                                             the default study
    python -m vit_plasticity.status --configfile workflow/studies/paper.yaml    another one

A cell is *done* when all its files are there; *diverged* when they are, but no learning rate gave a finite loss;
*stale* when they were made with other settings than the study asks for; *running* while a process holds its lock;
*failed* when its log tells of no success and there is no result; *missing* otherwise. Only reads.
"""

import collections
import shlex
import sys
from pathlib import Path

from vit_plasticity.runtime import cli
from vit_plasticity.study import config as studies
from vit_plasticity.study import grid, loading, states


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
    parser.add_argument("--state", choices=states.STATES, help="list the cells in this state alone")
    parser.add_argument("--directory", type=Path, default=Path(), help="where Snakemake works (default: here)")
    args = parser.parse_args(argv)
    config = studies.resolve(loading.load(args.configfile))
    results, logs = args.directory / "results" / config["study"], args.directory / "logs" / config["study"]
    counts, failed = collections.Counter(), []
    for cell in grid.cells(config):
        state, remark = states.of_cell(config, results, logs, cell)
        counts[state] += 1
        name = grid.CELL.format(**cell)
        if state == "failed":
            failed.append(f"results/{config['study']}/{grid.PATHS['finetune'].format(**cell)}")
        if args.state in (None, state):
            print(f"{state:9}{name}{remark and '  ' + remark}")
    print(
        f"\n{config['study']}: {counts.total()} cells, "
        + ", ".join(f"{counts[s]} {s}" for s in states.STATES if counts[s] or s not in ("running", "stale"))
    )
    if any(counts[state] for state in states.NOT_DONE):
        print(f"run what is not done:  {rerun_command(args.configfile, args.directory, [])}")
    if failed:
        print(f"one failed cell alone: {rerun_command(args.configfile, args.directory, failed[:1])}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
