"""Predictors: numbers per (model, dataset, component) that are known without fine-tuning. Standard library at import.

A file of this folder whose function is decorated with `@predictor` is a predictor of that function's name, and nothing
else lists it. The function takes a `task.Task` and yields rows, dicts of: component (its name), block (None for the
component as a whole), value, and where there are any ci_low, ci_high (of 95 %) and n (what was averaged over).
"""

import functools
import importlib
import re
from pathlib import Path

_DEFINITION = re.compile(r"^@predictor(\(trains=True\))?\ndef (\w+)\(task\):$", re.MULTILINE)


def predictor(function=None, *, trains=False):
    """Declare a predictor. trains: it fine-tunes a little, so that a study measures it only when it is named."""
    return functools.partial(predictor, trains=trains) if function is None else function


@functools.cache
def known():
    """Every predictor of this folder, without importing one: {name: whether it trains}."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for trains, name in _DEFINITION.findall(path.read_text(encoding="utf-8")):
            if name != path.stem:
                raise ValueError(f"{path.name} defines the predictor {name!r}; a predictor's file has its name")
            found[name] = bool(trains)
    return found


def names():
    """The names of all predictors."""
    return tuple(known())


def load(name):
    """The function of a predictor. Raises ValueError, naming the predictors, for an unknown name."""
    if name not in known():
        raise ValueError(f"unknown predictor {name!r}; choose from {', '.join(names())}")
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)
