"""Where the tables of a study lie below its folder, and which of them an analysis reads."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vit_plasticity.analysis import tables
from vit_plasticity.runtime import cli
from vit_plasticity.vit.components import BLOCK_COMPONENTS, parts

PATHS = {
    "plasticity": "plasticity/{model}/{dataset}/{component}.parquet",
    "bounds": "bounds/{model}/{component}.parquet",
    "measure": "predictors/{predictor}/{model}/{dataset}.parquet",
    "probe": "probe/{model}/{dataset}.parquet",
    "finetune": "finetune/{model}/{dataset}/{component}/seed={seed}/runs.parquet",
    "history": "finetune/{model}/{dataset}/{component}/seed={seed}/history.parquet",
    "evaluate": "shifted/{model}/{dataset}/{component}/seed={seed}.parquet",
}
"""Stage → its files below a study's folder."""

_GRID = {
    "models": str, "plasticity_models": str, "predictors": str, "datasets": str, "components": str, "seeds": int,
}  # fmt: skip


def grid_files(results, grid):
    """Stage → the files below the folder `results` that a study's Cartesian product consists of.

    grid: models, datasets, components, seeds; plasticity_models (those measured; default: models); predictors (those of
    the stage measure; default: none); evaluate_on (dataset → datasets that its cells are also evaluated on). Only
    components of a block have rates and bounds.
    Raises InputError where the grid is malformed, or any file is missing.
    """
    grid = _checked(grid)
    models, datasets, components, seeds = (grid[name] for name in ("models", "datasets", "components", "seeds"))
    measured = [c for c in components if c in BLOCK_COMPONENTS]
    cells = {"model": models, "dataset": datasets, "component": components, "seed": seeds}
    measurements = {"model": grid["plasticity_models"], "dataset": datasets, "component": measured}
    axes = {
        "plasticity": measurements,
        "bounds": {"model": grid["plasticity_models"], "component": measured},
        "measure": {"predictor": grid["predictors"], "model": grid["plasticity_models"], "dataset": datasets},
        "probe": {"model": models, "dataset": datasets},
        "finetune": cells,
        "history": cells,
        "evaluate": cells | {"dataset": [d for d in datasets if d in grid["evaluate_on"]]},
    }
    files = {
        stage: [
            Path(results, PATHS[stage].format(**dict(zip(keys, values, strict=True))))
            for values in itertools.product(*keys.values())
        ]
        for stage, keys in axes.items()
    }
    every = [path for paths in files.values() for path in paths]
    missing = [path for path in every if not path.is_file()]
    if missing:
        raise cli.InputError(
            f"{len(missing)} of the grid's {len(every)} files are missing, the first: "
            f"{', '.join(map(str, missing[:3]))}. "
            "Let snakemake make them, or leave out --grid to analyse what is finished."
        )
    return files


def _checked(grid):
    """The grid with its defaults, or InputError."""
    example = '{"models": ["m"], "datasets": ["d"], "components": ["mha"], "seeds": [0]}'
    if not isinstance(grid, dict):
        raise cli.InputError(f"--grid must be a JSON object such as {example}, got {grid!r}")
    unknown = [key for key in grid if key not in {*_GRID, "evaluate_on"}]
    if unknown:
        raise cli.InputError(f"--grid: unknown key {unknown[0]!r}; choose from {', '.join(_GRID)}, evaluate_on")
    grid = {"plasticity_models": grid.get("models"), "predictors": [], "evaluate_on": {}} | grid
    for key, kind in _GRID.items():
        values = grid.get(key)
        if (
            not isinstance(values, list)
            or not (values or key == "predictors")
            or any(type(value) is not kind for value in values)
        ):
            what = "strings" if kind is str else "whole numbers"
            raise cli.InputError(f"--grid: {key} must be a list of one or more {what}, got {values!r}; e.g. {example}")
    if not isinstance(grid["evaluate_on"], dict):
        raise cli.InputError(f'--grid: evaluate_on must be like {{"digits": ["pet"]}}, got {grid["evaluate_on"]!r}')
    try:
        for component in grid["components"]:
            parts(component)
    except ValueError as error:
        raise cli.InputError(f"--grid: {error}") from error
    return grid


def finished_files(results):
    """Stage → the files that exist below the folder `results`, sorted."""
    wildcards = dict.fromkeys((*tables.KEYS, "predictor"), "*")
    files = {stage: sorted(Path(results).glob(path.format(**wildcards))) for stage, path in PATHS.items()}
    if not any(files.values()):
        raise cli.InputError(f"nothing is finished below {results}: run a stage first, or name another folder")
    return files


def listed_files(paths):
    """Stage → those of the given files that this stage wrote, by their metadata."""
    with ThreadPoolExecutor(8) as pool:
        stages = [about["stage"] for about in pool.map(tables.about, paths)]
    files = {stage: [] for stage in PATHS}
    for path, stage in zip(paths, stages, strict=True):
        if stage not in files:
            raise cli.InputError(f"{path}: a table of stage {stage!r}; only those of {', '.join(PATHS)} are read")
        files[stage].append(path)
    return files
