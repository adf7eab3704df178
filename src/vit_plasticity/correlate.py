"""Join the measurements of a study into its tables: summary, predictors and their judgement, ranking, tests.

Reads a study's folder (with --grid exactly the files of that Cartesian product, without it whatever is finished), or
any list of files, whose kind their own metadata tells. Writes every table as Parquet, those without input empty, and
HTML copies of those that are for reading.
"""

import json
import sys
from pathlib import Path

from vit_plasticity.analysis import inputs, results, tables
from vit_plasticity.runtime import cli
from vit_plasticity.study.config import settings


def main(argv=None):
    parser = cli.parser("correlate", __doc__)
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="tables of any stages, instead of --results"
    )
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder of a study: results/NAME")
    parser.add_argument(
        "--grid", metavar="JSON", help="read exactly the files of this Cartesian product below --results"
    )
    parser.add_argument("--params", default="{}", metavar="JSON", help="the stage's settings as one JSON object")
    parser.add_argument(
        "--study", default="default", help="name of the study, as in the tables read (default: %(default)s)"
    )
    parser.add_argument(
        "--rev", type=int, default=1, help="revision of the numbers, recorded in the tables (default: 1)"
    )
    parser.add_argument(
        "--command", default="", metavar="TEXT", help="what makes the study again, told on its front page"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write the tables into")
    args = parser.parse_args(argv)
    params = settings("analysis", args.params)
    rows, sources = inputs.read(_chosen_files(args), args.study, params.confidence)
    about = {"study": args.study, "rev": args.rev, "settings": params.as_dict(), "sources": sources}
    about |= {"command": args.command}
    results.write(args.output, results.analyse(rows, params.as_dict()), **about)
    runs = rows["finetune"]
    print(
        f"{args.study}: {len(rows['plasticity_means'])} measurements, "
        f"{len(runs[list(tables.KEYS)].drop_duplicates())} cells, {len(runs)} runs, "
        f"of which {runs['outcome'].eq('diverged').sum()} diverged; tables in {args.output}"
    )


def _chosen_files(args):
    if bool(args.files) == bool(args.results):
        raise cli.InputError("name either --results DIR or one or more FILEs to read")
    if args.grid is None:
        return inputs.listed(args.files) if args.files else inputs.finished(args.results)
    if args.files:
        raise cli.InputError("--grid goes with --results DIR, not with a list of files")
    try:
        grid = json.loads(args.grid)
    except json.JSONDecodeError as error:
        raise cli.InputError(f"--grid is not JSON ({error}): {args.grid!r}") from error
    return inputs.of_grid(args.results, grid)


if __name__ == "__main__":
    sys.exit(cli.run(main))
