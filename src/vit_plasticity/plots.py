"""Draw a study's figures from its tables, each as PNG and PDF.

Reads what `correlate` wrote and nothing else. A figure whose tables have no rows yet says so.
"""

import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from vit_plasticity.analysis import schemas, tables
from vit_plasticity.figures import dynamics, finetuning, judgement, predictors, theme
from vit_plasticity.figures.data import Study
from vit_plasticity.runtime import cli
from vit_plasticity.study.grid import FIGURES

FUNCTIONS = {
    "plasticity_by_component": predictors.by_component,
    "plasticity_by_depth": predictors.by_depth,
    "relative_gain": finetuning.relative_gain,
    "plasticity_vs_accuracy": judgement.against_accuracy,
    "predictors_vs_accuracy": judgement.all_against_accuracy,
    "predictors_correlation": judgement.correlation,
    "rules_regret": judgement.regret,
    "accuracy_by_lr": finetuning.by_lr,
    "shifted": finetuning.shifted,
    "dynamics": dynamics.draw,
    "bounds_vs_plasticity": predictors.against_bounds,
    "accuracy_vs_costs": finetuning.against_costs,
    "critical_difference": finetuning.critical_difference,
    "predictors_by_block": judgement.by_block,
}
"""Figure → function (Study, styles of the components) → matplotlib figure."""

OF_ONE = {
    "by_component": predictors.by_component,
    "by_depth": predictors.by_depth,
    "vs_accuracy": judgement.against_accuracy,
}
"""What --predictor draws: end of the file's name → function (Study, styles, name of the predictor) → figure."""


def read(folder):
    """The tables of a folder as a `Study`. Raises InputError for one that is missing or not written by `correlate`."""
    frames = {}
    for name in (field.name for field in fields(Study)):
        path = Path(folder, f"{name}.parquet")
        if not path.is_file():
            raise cli.InputError(f"{path} is missing: write the tables with python -m vit_plasticity.correlate first")
        if (stage := tables.about(path)["stage"]) != "correlate":
            raise cli.InputError(f"{path} was written by stage {stage!r}; name a folder that correlate wrote")
        if name == "history":
            frames[name] = dynamics.read_history(path, frames["finetune"], frames["summary"])
        else:
            frames[name] = schemas.conform(pq.read_table(path), name).to_pandas()
    return Study(**frames)


def main(argv=None):
    parser = cli.parser("plots", __doc__)
    parser.add_argument("--tables", required=True, type=Path, metavar="DIR", help="folder that correlate wrote")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write the figures into")
    parser.add_argument("--predictor", metavar="NAME", help="draw the figures of this predictor alone, by its name")
    args = parser.parse_args(argv)
    study = read(args.tables)
    theme.use()
    styles = theme.styles(study.summary["component"].unique())
    drawn = {name: partial(FUNCTIONS[name], study, styles) for name in FIGURES}
    if args.predictor:
        known = list(study.predictors["predictor"].unique())
        if args.predictor not in known:
            raise cli.InputError(f"--predictor {args.predictor!r}: these tables have {', '.join(known) or 'none'}")
        drawn = {
            f"{args.predictor}_{end}": partial(draw, study, styles, args.predictor) for end, draw in OF_ONE.items()
        }
    for name, draw in drawn.items():
        theme.save(draw(), args.output, name)
    print(f"{len(drawn)} figures in {args.output}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
