"""Join the measurements of a study into its tables: summary, ranking, correlations, tests, and the rows behind them.

Reads a study's folder (with --grid exactly the files of that Cartesian product, without it whatever is finished), or
any list of files, whose kind their own metadata tells. Writes every table as Parquet, those without input empty, and
HTML copies of the four that are for reading.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from vit_plasticity.analysis import html as html_table
from vit_plasticity.analysis import schemas, tables
from vit_plasticity.analysis import summary as analysis
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.files import atomic
from vit_plasticity.study import grid as layout

PAGES = {
    "summary": "One row per fine-tuned or measured component: plasticity (mean over blocks and pairs) with its "
    "interval, the learning rate chosen on validation, accuracy on test over seeds, and what it is compared to.",
    "ranking": "Components over datasets, best mean rank first; rank 1 is the highest test accuracy on a dataset.",
    "correlation": "Plasticity against accuracy and against relative gain over the linear probe. Pooled scopes compare "
    "components only within a dataset; p-values are of permutations within datasets.",
    "tests": "Pairs of components, paired by dataset: Student's t and Wilcoxon's signed-rank test, two-sided, and "
    "adjusted by Holm's method over the pairs of one model and outcome.",
}
"""Tables that are also written as HTML → what a reader must know of them."""


@dataclass(frozen=True)
class AnalysisParams:
    """confidence: of all intervals; bootstrap: resamples; permutations: at most; seed: of both."""

    confidence: float = 0.95
    bootstrap: int = 2000
    permutations: int = 10000
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.confidence < 1:
            raise cli.InputError(f"--params: confidence must lie between 0 and 1, got {self.confidence}")
        for name in ("bootstrap", "permutations"):
            if getattr(self, name) < 1:
                raise cli.InputError(f"--params: {name} must be 1 or more, got {getattr(self, name)}")


def analyse(inputs, params):
    """Tables computed from the rows that `read` returns: a dict of frames (summary, ranking, correlation, tests)."""
    summary = analysis.summarise(
        runs=inputs["finetune"],
        plasticity=inputs["plasticity_means"],
        bounds=inputs["bounds"],
        probe=inputs["probe"],
        robustness=inputs["robustness"],
    )
    return {
        "summary": summary,
        "ranking": analysis.rank(summary),
        "correlation": analysis.correlations(summary, **asdict(params)),
        "tests": analysis.paired_tests(summary),
    }


def read(files, study, confidence):
    """The rows of every stage and where they come from: (dict of frames, dict stage → `about`).

    The frames are named as in `schemas`; history stays an Arrow table. Raw rates need not fit in memory, so plasticity
    comes reduced to blocks, and once more as plasticity_means, one row per measurement.
    Raises InputError for rows of another study or of mixed revisions, a missing column, or a key that occurs twice.
    """
    rows, sources = {}, {}
    for stage, paths in files.items():
        name = "robustness" if stage == "evaluate" else stage
        if stage == "plasticity":
            rows[name], rows["plasticity_means"], source = _read_rates(paths, confidence)
        else:
            table, source = tables.read_many(paths) if paths else (None, None)
            table = schemas.conform(table, name)
            rows[name] = table if name == "history" else table.to_pandas()
        if source:
            sources[stage] = source
    for stage, source in sources.items():
        if source["study"] != study:
            raise cli.InputError(
                f"the tables of {stage} are of study {source['study']!r}, but --study says {study!r}; "
                "name the right one"
            )
    for name, keys in schemas.UNIQUE.items():
        twice = rows[name].duplicated(keys.split())
        if twice.any():
            key = rows[name].loc[twice, keys.split()].iloc[0].to_dict()
            raise cli.InputError(f"{name}: more than one row for {key}; name each file once")
    return rows, sources


def _read_rates(paths, confidence):
    """Measurements, one file at a time: (rates by block, plasticity means, `about` of the whole)."""
    by_block, means, whole = [], [], None
    for path in paths:
        table, source = tables.read_many([path])
        whole = whole or source
        if (source["study"], source["rev"]) != (whole["study"], whole["rev"]):
            raise cli.InputError(
                f"{path} is of study {source['study']!r}, rev {source['rev']}, but {paths[0]} of {whole['study']!r}, "
                f"rev {whole['rev']}: make the older one again, or name files of one kind"
            )
        whole["provenance"] += [one for one in source["provenance"] if one not in whole["provenance"]]
        rates = schemas.conform(table, "rates").to_pandas()
        by_block.append(analysis.rates_by_block(rates, confidence))
        means.append(analysis.plasticity_of(rates, confidence))
    if not paths:
        none = schemas.schema("rates").empty_table().to_pandas()
        by_block, means = [analysis.rates_by_block(none, confidence)], [analysis.plasticity_of(none, confidence)]
    return pd.concat(by_block, ignore_index=True), pd.concat(means, ignore_index=True), whole


def write(folder, results, *, study, rev, sources):
    """Write every table (frame or Arrow table, by name) into `folder` as Parquet, and those of PAGES as HTML."""
    about = {"study": study, "stage": "correlate", "rev": rev, "key": {}, "provenance": tables.provenance()}
    for name, rows in results.items():
        if not isinstance(rows, pa.Table):
            rows = pa.Table.from_pandas(rows.reindex(columns=schemas.columns(name)), preserve_index=False)
        table = schemas.conform(rows, name)
        tables.write_table(Path(folder, f"{name}.parquet"), table, about | {"sources": sources})
        if name in PAGES:
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
    params = cli.params(AnalysisParams, args.params)
    rows, sources = read(_chosen_files(args), args.study, params.confidence)
    passed_on = {name: rows[name] for name in ("plasticity", "bounds", "probe", "finetune", "history", "robustness")}
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
        return layout.listed_files(args.files) if args.files else layout.finished_files(args.results)
    if args.files:
        raise cli.InputError("--grid goes with --results DIR, not with a list of files")
    try:
        grid = json.loads(args.grid)
    except json.JSONDecodeError as error:
        raise cli.InputError(f"--grid is not JSON ({error}): {args.grid!r}") from error
    return layout.grid_files(args.results, grid)


if __name__ == "__main__":
    sys.exit(cli.run(main))
