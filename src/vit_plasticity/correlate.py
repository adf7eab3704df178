"""Join the measurements of a study into its tables: summary, predictors and their judgement, ranking, tests.

Reads a study's folder (with --grid exactly the files of that Cartesian product, without it whatever is finished), or
any list of files, whose kind their own metadata tells. Writes every table as Parquet, those without input empty, and
HTML copies of those that are for reading.
"""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vit_plasticity.analysis import html as html_table
from vit_plasticity.analysis import inputs, judge, predictor_table, schemas, tables
from vit_plasticity.analysis import summary as analysis
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.files import atomic
from vit_plasticity.study.config import settings
from vit_plasticity.study.grid import PAGES


def analyse(rows, params):
    """Tables computed from what `inputs.read` returns: a dict of frames."""
    known = predictor_table.join(
        plasticity=rows["plasticity_means"],
        rates=rows["rates_by_block"],
        bounds=rows["bounds"],
        measured=rows["predictors"],
        runs=rows["finetune"],
    )
    whole = predictor_table.whole(known)
    summary = analysis.summarise(
        runs=rows["finetune"],
        plasticity=rows["plasticity_means"],
        predictors=whole,
        probe=rows["probe"],
        shifted=rows["shifted"],
    )
    judged = judge(summary[summary["n_runs"] > 0], whole[whole["dataset"].notna()], **params.as_dict())
    computed = {"summary": summary, "ranking": analysis.rank(summary), "tests": analysis.paired_tests(summary)}
    return computed | {"predictors": known} | judged


def write(folder, results, *, study, rev, sources):
    """Write every table (frame or Arrow table, by name) into `folder` as Parquet, and those of PAGES as HTML."""
    about = {"study": study, "stage": "correlate", "rev": rev, "key": {}, "provenance": tables.provenance()}
    for name, rows in results.items():
        if not isinstance(rows, pa.Table):
            rows = pa.Table.from_pandas(rows.reindex(columns=schemas.columns(name)), preserve_index=False)
        table = schemas.conform(rows, name)
        tables.write_table(Path(folder, f"{name}.parquet"), table, about | {"sources": sources})
        if name in PAGES:
            if name == "predictors":
                table = table.filter(pc.is_null(table["block"])).drop_columns("block")
            with atomic(Path(folder, f"{name}.html")) as temporary:
                temporary.write_text(html_table.page(table, f"{study}: {name}", PAGES[name]), encoding="utf-8")


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
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write the tables into")
    args = parser.parse_args(argv)
    params = settings("analysis", args.params)
    rows, sources = inputs.read(_chosen_files(args), args.study, params.confidence)
    passed_on = {name: rows[name] for name in ("rates_by_block", "probe", "finetune", "history", "shifted")}
    write(args.output, passed_on | analyse(rows, params), study=args.study, rev=args.rev, sources=sources)
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
