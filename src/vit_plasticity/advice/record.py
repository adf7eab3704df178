"""The record: what was lost so far by following each predictor, on studies in which every component was trained.

One row per (study, model, dataset, rule): the regret, the test accuracy (in [0, 1]) lost by taking the component that
the rule chose instead of the best single one. The table ships with the package; finished studies extend it.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from vit_plasticity.analysis.association import draw_clusters, percentiles
from vit_plasticity.analysis.judgement import NULL
from vit_plasticity.runtime.cli import InputError

SHIPPED = Path(__file__).with_name("record.csv")
KEYS = ["study", "model", "dataset", "rule"]
COLUMNS = [*KEYS, "component", "regret"]
LEAST_BLOCKS = 5
"""A predictor with a record of fewer (model, dataset) blocks is not followed before the null."""


def load(folders=()):
    """The shipped record, and that of finished studies: `folders` hold their tables, with regret.parquet.

    A row of a later source replaces the row of the same study, model, dataset and rule.
    """
    frames = [pd.read_csv(SHIPPED), *(of_study(folder) for folder in folders)]
    return pd.concat(frames, ignore_index=True).drop_duplicates(KEYS, keep="last", ignore_index=True)


def of_study(folder):
    """The rows of one finished study. Raises InputError for a folder without a readable regret.parquet."""
    path = Path(folder, "regret.parquet")
    try:
        frame = pd.read_parquet(path)
        frame = frame[frame["scope"] == "dataset"]
        return frame.assign(study=_study(path))[COLUMNS].reset_index(drop=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"--record {folder}: no table of regrets can be read there ({error}); "
            "give the folder of tables of a finished study, such as results/demo/tables"
        ) from error


def _study(path):
    """The name of the study that a table belongs to, from its metadata; the name of its folder where there is none."""
    import pyarrow.parquet

    from vit_plasticity.analysis import tables

    try:
        return tables.about(path)["study"]
    except (KeyError, InputError, pyarrow.ArrowInvalid):
        return path.resolve().parent.parent.name


def summarise(record, null=NULL):
    """One row per rule, the smallest mean regret compared to the null's first.

    Columns: rule; regret (mean), regret_max, n (number of blocks (study, model, dataset)), studies (their names);
    null_regret (of the null, mean over the same blocks, null where they share none), n_null (how many they share),
    excess: the mean difference to the null on the shared blocks; below 0 is better than the null; excess_low and
    excess_high: its 95 % bootstrap interval over datasets or over models (three or more), whichever reaches further.
    """
    block = ["study", "model", "dataset"]
    of_null = record[record["rule"] == null].set_index(block)["regret"].rename("null_regret")
    joined = record.join(of_null, on=block)
    rows = []
    for rule, group in joined.groupby("rule", sort=False):
        shared = group.dropna(subset=["null_regret"])
        rows.append({
            "rule": rule, "regret": group["regret"].mean(), "regret_max": group["regret"].max(), "n": len(group),
            "studies": ", ".join(sorted(group["study"].unique())), "null_regret": shared["null_regret"].mean(),
            "n_null": len(shared), **_excess(shared),
        })  # fmt: skip
    columns = ["rule", "regret", "regret_max", "n", "studies", "null_regret", "n_null"]
    columns += ["excess", "excess_low", "excess_high"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values(["excess", "regret"], na_position="last", kind="stable", ignore_index=True)


def _excess(shared):
    excess = (shared["regret"] - shared["null_regret"]).to_numpy()
    lows, highs = [], []
    for cluster in ("dataset", "model"):
        if shared[cluster].nunique() > 2:
            times = draw_clusters(shared[cluster].to_numpy(), 2000, np.random.default_rng(0))
            low, high = percentiles(times @ excess / times.sum(axis=1), 0.95)
            lows, highs = [*lows, low], [*highs, high]
    low, high = min(lows, default=math.nan), max(highs, default=math.nan)
    return {"excess": excess.mean() if len(excess) else math.nan, "excess_low": low, "excess_high": high}


def left_out(record, by):
    """What it costs to follow the record where it has not been: for each value of `by` ("dataset" or "model"), the rule
    of the smallest mean regret on all others, and the mean regret of that rule and of the null on this one.

    Rules that need training are left out, and so are those without a row for every block. Columns: `by`, rule, regret,
    null_regret, n (blocks). Empty where there is nothing to leave out.
    """
    block = ["study", "model", "dataset"]
    table = record[record["rule"] != "validation"].pivot(index=block, columns="rule", values="regret")
    table, places = table.dropna(axis="columns"), table.index.get_level_values(by)
    rows = []
    for place in places.unique() if places.nunique() > 1 else ():
        here, others = table[places == place], table[places != place]
        rule = others.mean().idxmin()
        rows.append({by: place, "rule": rule, "regret": here[rule].mean(), "n": len(here)})
        rows[-1]["null_regret"] = here[NULL].mean() if NULL in here else math.nan
    return pd.DataFrame(rows, columns=[by, "rule", "regret", "null_regret", "n"])


def best(summary, available, null=NULL):
    """The predictor to follow among `available`: the smallest excess over the null, its interval below 0 and on enough
    blocks.

    Where none is better than the null, the null; where the null is not available, the first available name.
    """
    able = summary[summary["rule"].isin(available) & (summary["n_null"] >= LEAST_BLOCKS) & (summary["excess_high"] < 0)]
    if len(able):
        return able.iloc[0]["rule"]
    return null if null in available else next(iter(available))
