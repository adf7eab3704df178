"""Adaptive components: what ``auto:PREDICTOR:K`` trains of a model on a dataset, resolved before a cell starts.

It is the sum of the K single components of the study (see `components.is_single`; ranges of blocks among them, where
the study names them) of the highest values of the predictor. One that shares parameters with another of a higher value
is passed over. ``auto:random:K`` draws them by (seed, model, dataset), by a counter-based generator: K + 1 contain K.
"""

import hashlib
import itertools
import json
import math

import numpy as np

from vit_plasticity.analysis import tables
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import components
from vit_plasticity.vit.components import is_single


def resolve(component, candidates, files, inputs, key):
    """The Component that one is for one model and dataset: itself, unless it is adaptive.

    component: a Component. candidates: those of the study. files: the predictor's tables of this model and dataset;
    none for random. inputs: the fingerprints of model and dataset, by these names. key: of the cell, a dict.
    Raises InputError for tables of anything else, for a component without a value, a tie, and too few components.
    """
    if component.auto is None:
        return component
    predictor, count = component.auto
    what = f"component {component.name!r} of {key['model']} on {key['dataset']}"
    singles = sorted((one for one in {*candidates} if is_single(one.name)), key=lambda one: one.order)
    if predictor == "random":
        values = _drawn(singles, [key["seed"], key["model"], key["dataset"]])
    else:
        values = _measured(what, predictor, singles, files, inputs)
    return components.union(_highest(what, values, count))


def _drawn(singles, place):
    """A random value for each component, which depends on the place alone."""
    key = int.from_bytes(hashlib.sha256(json.dumps(place).encode()).digest()[:16], "little")
    return dict(zip(singles, np.random.Philox(key=key).random_raw(len(singles)).tolist(), strict=True))


def _measured(what, predictor, singles, files, inputs):
    """The predictor's value of each of the components that it is defined for."""
    if not files:
        raise InputError(f"{what}: needs the tables of {predictor} on this model and dataset; name them by --predicted")
    table, abouts = tables.read_many(files)
    for file, about in zip(files, abouts, strict=True):
        measured = {"predictor": about["key"].get("predictor", about["stage"])}
        measured |= {name: (about["inputs"] or {}).get(name) for name in inputs}
        if measured != {"predictor": predictor} | inputs:
            raise InputError(f"{what}: {file} is not of {predictor}, this model and this dataset; make it again")
    known = _mean_rates(table, singles) if predictor == "plasticity" else _wholes(table)
    values = {one: known[one.name] for one in singles if one.name in known}
    if unknown := [one.name for one in values if values[one] is None or not math.isfinite(values[one])]:
        raise InputError(
            f"{what}: {predictor} has no value for {', '.join(unknown)}; name another predictor, or leave "
            "what has none out of the study"
        )
    return values


def _wholes(table):
    """Name → value of the components as wholes, of a table of the stage measure."""
    rows = table.select(["component", "block", "value"]).to_pylist()
    return {row["component"]: row["value"] for row in rows if row["block"] is None}


def _mean_rates(table, singles):
    """Name → mean rate of change over its blocks and all pairs, of tables of the stage plasticity."""
    means = table.group_by(["component", "block"]).aggregate([("rate", "mean")]).to_pylist()
    means = {(row["component"], row["block"]): row["rate_mean"] for row in means}
    n_blocks = 1 + max(block for _, block in means)
    found = {}
    for one in singles:
        if one.base and (one.base.name, 0) in means:
            blocks = one.blocks(n_blocks)
            found[one.name] = sum(means[one.base.name, block] for block in blocks) / len(blocks)
    return found


def _highest(what, values, count):
    """The `count` components of the highest values, none of which shares parameters with a higher one."""
    chosen, left = [], values
    while len(chosen) < count:
        left = {one: v for one, v in left.items() if not any(one.overlaps(other) for other in chosen)}
        if not left:
            raise InputError(
                f"{what}: only {len(chosen)} components of the study have a value and share no parameters; "
                "choose at most as many, or name more components in the study"
            )
        best = [one for one in left if left[one] == max(left.values())]
        if len(best) > count - len(chosen) or any(a.overlaps(b) for a, b in itertools.combinations(best, 2)):
            raise InputError(
                f"{what}: {', '.join(one.name for one in best)} tie at {max(left.values()):g}; choose another number "
                "of components, or another predictor"
            )
        chosen += best
    return chosen
