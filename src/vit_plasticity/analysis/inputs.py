"""What the stages of a study wrote, read into frames and checked: one study, one revision, no key twice."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from vit_plasticity.analysis import schemas, sources, tables
from vit_plasticity.analysis import summary as analysis
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import grid

TABLE_OF = {"plasticity": "rates_by_block", "evaluate": "shifted", "measure": "predictors"}
"""Stage → its table, where that has another name."""


def of_grid(results, given):
    """Stage → the tables below the folder `results` that a study's grid names (see `grid.files`).

    Raises InputError where any is missing.
    """
    named = grid.files(given)
    files = {stage: [Path(results, path) for path in named[stage]] for stage in grid.TABLES_READ}
    every = [path for paths in files.values() for path in paths]
    missing = [path for path in every if not path.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of the grid's {len(every)} files are missing, the first: "
            f"{', '.join(map(str, missing[:3]))}. "
            "Let snakemake make them, or leave out --grid to analyse what is finished."
        )
    return files


def finished(results):
    """Stage → the tables that exist below the folder `results`, sorted."""
    wildcards = dict.fromkeys((*grid.CELL_KEYS, "predictor"), "*")
    files = {name: sorted(Path(results).glob(grid.PATHS[name].format(**wildcards))) for name in grid.TABLES_READ}
    if not any(files.values()):
        raise InputError(f"nothing is finished below {results}: run a stage first, or name another folder")
    return files


def listed(paths):
    """Stage → those of the given tables that this stage wrote, by their metadata."""
    with ThreadPoolExecutor(8) as pool:
        stages = [about["stage"] for about in pool.map(tables.about, paths)]
    files = {stage: [] for stage in grid.TABLES_READ}
    for path, stage in zip(paths, stages, strict=True):
        if stage not in files:
            raise InputError(f"{path}: a table of stage {stage!r}; only those of {', '.join(files)} are read")
        files[stage].append(path)
    return files


def read(files, study, confidence):
    """The rows of every stage and where they come from: (dict of frames, dict stage → `sources.describe`).

    files: stage → paths. The frames are named as in `schemas`; history stays an Arrow table. Raw rates need not fit in
    memory, so plasticity comes reduced to blocks, and once more as plasticity_means, one row per measurement.
    Raises InputError for rows of another study, of mixed revisions, settings or inputs, a missing column, or a key that
    occurs twice.
    """
    rows, abouts = {}, {}
    for stage, paths in files.items():
        name = TABLE_OF.get(stage, stage)
        if stage == "plasticity":
            rows[name], rows["plasticity_means"], abouts[stage] = _read_rates(paths, confidence)
        else:
            table, abouts[stage] = tables.read_many(paths) if paths else (None, [])
            table = schemas.conform(table, name)
            rows[name] = table if name == "history" else table.to_pandas()
    _check(files, abouts, study)
    for name, keys in schemas.UNIQUE.items():
        twice = rows[name].duplicated(keys.split())
        if twice.any():
            key = rows[name].loc[twice, keys.split()].iloc[0].to_dict()
            raise InputError(f"{name}: more than one row for {key}; name each file once")
    return rows, {stage: sources.describe(found) for stage, found in abouts.items() if found}


def _check(files, abouts, study):
    for stage, paths in files.items():
        sources.refuse_mixed(stage, paths, abouts[stage])
        if paths and (found := abouts[stage][0]["study"]) != study:
            raise InputError(
                f"the tables of {stage} are of study {found!r}, but --study says {study!r}; name the right one"
            )
    every = [(path, about) for stage in files for path, about in zip(files[stage], abouts[stage], strict=True)]
    sources.refuse_other_inputs(*zip(*every, strict=True))


def _read_rates(paths, confidence):
    """Measurements, one file at a time: (rates by block, plasticity means, the dict `about` of each)."""
    by_block, means, abouts = [], [], []
    for path in paths:
        table, (about,) = tables.read_many([path])
        abouts.append(about)
        rates = schemas.conform(table, "rates").to_pandas()
        inputs = about.get("inputs") or {}
        same_images = "source" in inputs and inputs["source"] == inputs.get("dataset")
        by_block.append(analysis.rates_by_block(rates, confidence, same_images=same_images))
        means.append(analysis.plasticity_of(rates, confidence, same_images=same_images))
    if not paths:
        none = schemas.schema("rates").empty_table().to_pandas()
        by_block, means = [analysis.rates_by_block(none, confidence)], [analysis.plasticity_of(none, confidence)]
    return pd.concat(by_block, ignore_index=True), pd.concat(means, ignore_index=True), abouts
