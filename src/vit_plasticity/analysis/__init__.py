"""Analysis: from the tables of the stages to summaries, and the judgement of predictors. Standard library at import."""

import importlib

__all__ = ["judge"]


def __getattr__(name):
    """`judge` is imported when it is used, so that reading and writing tables does not import SciPy."""
    if name == "judge":
        return importlib.import_module("vit_plasticity.analysis.judgement").judge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
