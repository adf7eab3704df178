"""Which function draws which figure, and what they are given: the tables that `correlate` wrote."""

from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq

from vit_plasticity.analysis import schemas, sources, tables
from vit_plasticity.figures import dynamics, finetuning, judgement, landscape, predictors, taps
from vit_plasticity.figures.data import Study
from vit_plasticity.runtime import cli

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
    "dynamics_by_lr": dynamics.by_lr,
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


OPTIONAL = {"probes_by_block": taps.by_block, "loss_landscape": landscape.draw}
"""Figure of `grid.OPTIONAL_FIGURES` → function (rows of the table of that name, styles) → matplotlib figure."""

_STAGES = {"probes_by_block": "taps", "loss_landscape": "landscape"}


def read_files(name, paths):
    """The rows of the tables that an optional figure is drawn from.

    Raises InputError for those of another stage, and for those that do not go together.
    """
    table, abouts = tables.read_many(paths)
    for path, about in zip(paths, abouts, strict=True):
        if about["stage"] != _STAGES[name]:
            raise cli.InputError(f"{path} was written by stage {about['stage']!r}; {name} needs {_STAGES[name]!r}")
    sources.refuse_mixed(_STAGES[name], paths, abouts)
    sources.refuse_other_inputs(paths, abouts)
    return schemas.conform(table, name).to_pandas()


def read(folder):
    """The tables of a folder as a `Study`. Raises InputError for one that is missing or not written by `correlate`."""
    frames = {}
    for name in (field.name for field in fields(Study)):
        path = Path(folder, f"{name}.parquet")
        if not path.is_file():
            raise cli.InputError(f"{path} is missing: write the tables with python -m vit_plasticity.correlate first")
        if (stage := tables.about(path)["stage"]) != "correlate":
            raise cli.InputError(f"{path} was written by stage {stage!r}; name a folder that correlate wrote")
        frames[name] = path if name == "history" else schemas.conform(pq.read_table(path), name).to_pandas()
    return Study(**frames)
