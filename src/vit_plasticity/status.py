"""Which cells of a study are done, diverged, failed or missing, and the command that runs what is not done.

    python -m vit_plasticity.status                                             the default study
    python -m vit_plasticity.status --configfile workflow/studies/paper.yaml    another one
    python -m vit_plasticity.status --watch                                     a line whenever the numbers change

A cell is *done* when all its files are there; *diverged* when they are, but no learning rate gave a finite loss;
*stale* when they were made with other settings than the study asks for; *running* while a process holds its lock;
*failed* when its log tells of no success and there is no result; *missing* otherwise. Only reads.
"""

import collections
import sys
import time
from pathlib import Path

from vit_plasticity.runtime import cli
from vit_plasticity.study import config as studies
from vit_plasticity.study import grid, loading, states

WATCH_S = 3
"""Seconds between two looks."""


def main(argv=None):
    parser = cli.parser("status", __doc__)
    parser.add_argument(
        "--configfile", nargs="+", default=[], help="files of the study, as given to snakemake (default: config.yaml)"
    )
    parser.add_argument("--state", choices=states.STATES, help="list the cells in this state alone")
    parser.add_argument("--directory", type=Path, default=Path(), help="where Snakemake works (default: here)")
    parser.add_argument("--watch", action="store_true", help="print the numbers whenever they change, to the end")
    args = parser.parse_args(argv)
    config = studies.resolve(loading.load(args.configfile))
    if not args.watch:
        _tell(config, args)
        return
    told = None
    while True:
        lines = _summary(config, args, _states(config, args))
        if lines[0] != told:
            told = lines[0]
            print(told, flush=True)
        if len(lines) == 1:  # nothing is left to run
            return
        time.sleep(WATCH_S)


def _states(config, args):
    """(name, state, remark, path of its results) of every cell."""
    results, logs = args.directory / "results" / config["study"], args.directory / "logs" / config["study"]
    for cell in grid.cells(config):
        path = f"results/{config['study']}/{grid.PATHS['finetune'].format(**cell)}"
        yield grid.CELL.format(**cell), *states.of_cell(config, results, logs, cell), path


def _tell(config, args):
    cells = list(_states(config, args))
    for name, state, remark, _ in cells:
        if args.state in (None, state):
            print(f"{state:9}{name}{remark and '  ' + remark}")
    print("", *_summary(config, args, cells), sep="\n")


def _summary(config, args, cells):
    """The lines that say how many cells are in which state, and the commands that run what is not done."""
    cells = list(cells)
    counts = collections.Counter(state for _, state, _, _ in cells)
    shown = [f"{counts[s]} {s}" for s in states.STATES if counts[s] or s not in ("running", "stale")]
    lines = [f"{config['study']}: {len(cells)} cells, {', '.join(shown)}"]
    if any(counts[state] for state in states.NOT_DONE):
        lines.append(f"run what is not done:  {states.rerun_command(args.configfile, args.directory, [])}")
    if failed := [path for _, state, _, path in cells if state == "failed"]:
        lines.append(f"one failed cell alone: {states.rerun_command(args.configfile, args.directory, failed[:1])}")
    return lines


if __name__ == "__main__":
    sys.exit(cli.run(main))
