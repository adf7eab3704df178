"""The table `predictors`: every number that was known before fine-tuning, one row each, from whatever stage gave it."""

import numpy as np
import pandas as pd

from vit_plasticity.analysis import schemas

GROUP = ["model", "dataset", "component"]
_KEY = [*GROUP, "predictor", "block"]


def join(*, plasticity, rates, measured, runs):
    """Rows of the table `predictors`, in the order of its columns; a block of null is the component as a whole.

    plasticity: rows of `summary.plasticity_of`; rates: of `summary.rates_by_block`; measured: of the stage `measure`;
    runs: of `finetune`. Any may be empty. `parameters` is made here of the runs where the stage `measure` gives none.
    """
    frames = [_plasticity(plasticity, rates), measured]
    if not measured["predictor"].eq("parameters").any():
        frames.append(_parameters(runs))
    frames = [frame.reindex(columns=schemas.columns("predictors")) for frame in frames if len(frame)]
    if not frames:
        return schemas.schema("predictors").empty_table().to_pandas()
    numbers = {column: float for column in ("value", "ci_low", "ci_high", "duration_s")}
    joined = pd.concat([frame.astype({"block": "Int64", "n": "Int64"} | numbers) for frame in frames])
    return joined.reset_index(drop=True)


def whole(predictors):
    """The rows that are of a component as a whole, not of one block."""
    return predictors[predictors["block"].isna()]


def _plasticity(plasticity, rates):
    names = {"plasticity": "value", "plasticity_ci_low": "ci_low", "plasticity_ci_high": "ci_high", "n_pairs": "n"}
    rows = [plasticity.rename(columns=names), rates.rename(columns={"rate_mean": "value", "n_pairs": "n"})]
    return pd.concat([rows[0].assign(block=pd.NA), rows[1]], ignore_index=True).assign(predictor="plasticity")


def _parameters(runs):
    """log10 of how many values a component trains, from what its runs trained, less what those of `head` trained.

    Where no cell of `head` was trained, the head and the final norm are counted in: the order of components is the
    same, their distances are smaller.
    """
    trained = runs.groupby(GROUP, sort=False)["n_trained"].max().reset_index()
    head = trained[trained["component"].eq("head")].set_index(GROUP[:2])["n_trained"].rename("head")
    n = trained["n_trained"] - trained.join(head, on=GROUP[:2])["head"].fillna(0)
    rows = trained.assign(value=np.log10(n.where(n > 0)), block=pd.NA, predictor="parameters")
    return rows[rows["value"].notna()].drop(columns="n_trained")
