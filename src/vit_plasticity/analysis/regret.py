"""Regret: the test accuracy lost by following a rule instead of knowing the best single component."""

import math

import numpy as np
import pandas as pd

from vit_plasticity.analysis.association import draw_clusters, percentiles

_BLOCK = ["model", "dataset"]
COLUMNS = [
    "rule", "scope", "model", "dataset", "component", "test_accuracy", "regret", "regret_max", "n", "n_diverged",
    "ci_low", "ci_high",
]  # fmt: skip


def regrets(accuracies, predictors, *, confidence, resamples, seed):
    """Regret per rule: on every (model, dataset), and summed up per model and over all.

    Rules: each predictor (the component of its highest value), `always-X` for each component X, `random` (the mean over
    components: a random choice in expectation), `validation` (the component of the highest validation accuracy, known
    only after training all; where val_accuracy_mean is given). Components that tie share: accuracy and regret are their
    means, and `component` names them all. A rule that has no value on a dataset has no row there.

    accuracies, predictors: as in `judgement.judge`, single components alone; the regret is against the best of them.
    A component without an accuracy (every run diverged) is charged with the worst accuracy that another one reached,
    so that its regret is *at least* the number given; its test_accuracy is null and n_diverged counts it. A dataset on
    which all diverged has no rows.
    Rows of scope "dataset": component, its test_accuracy, regret in [0, 1], n_diverged among the components chosen.
    Rows of scope "model" and "all": test_accuracy and regret are means (the former null where any is), regret_max the
    largest, n their number, n_diverged the datasets charged, ci_low and ci_high the bootstrap interval of the mean
    regret over datasets (three or more).
    """
    keys = [*_BLOCK, "component"]
    values = {name: rows.set_index(keys)["value"].sort_index() for name, rows in predictors.groupby("predictor")}
    names = list(predictors["predictor"].unique())
    rows = [
        {"rule": rule, "scope": "dataset", "model": model, "dataset": dataset} | found
        for (model, dataset), group in accuracies.groupby(_BLOCK, sort=False)
        if group["test_accuracy_mean"].notna().any()
        for rule, found in _choices(group.set_index("component"), {n: _of(values[n], model, dataset) for n in names})
    ]
    rows = pd.DataFrame(rows, columns=[*COLUMNS[:7], "n_diverged"])
    order = {rule: i for i, rule in enumerate(_in_order(rows["rule"].unique(), names))}
    rows = rows.sort_values("rule", key=lambda rule: rule.map(order), kind="stable")
    summaries = [
        {"rule": rule, "scope": "model", "model": model, "dataset": None} | _summary(one, confidence, resamples, seed)
        for (rule, model), one in rows.groupby(["rule", "model"], sort=False)
    ]
    summaries += [
        {"rule": rule, "scope": "all", "model": None, "dataset": None} | _summary(one, confidence, resamples, seed)
        for rule, one in rows.groupby("rule", sort=False)
    ]
    numbers = dict.fromkeys(COLUMNS[5:], float)
    parts = [rows.reindex(columns=COLUMNS), pd.DataFrame(summaries, columns=COLUMNS)]
    return pd.concat([part.astype(object) for part in parts], ignore_index=True).astype(numbers)


def _of(values, model, dataset):
    """A predictor's values on one dataset of one model, by component."""
    try:
        return values.xs((model, dataset))
    except KeyError:
        return pd.Series(dtype=float)


def _choices(group, values):
    """(rule, what it chose) for one dataset under one model. group: indexed by component."""
    accuracy = group["test_accuracy_mean"]
    for predictor, known in values.items():
        if len(known := known.reindex(accuracy.index).dropna()):
            yield predictor, _chosen(accuracy, known.index[known == known.max()])
    if "val_accuracy_mean" in group and len(known := group["val_accuracy_mean"].dropna()):
        yield "validation", _chosen(accuracy, known.index[known == known.max()])
    yield "random", _chosen(accuracy, accuracy.index) | {"component": None}
    for component in accuracy.index:
        yield f"always-{component}", _chosen(accuracy, [component])


def _chosen(accuracy, components):
    chosen = accuracy.loc[list(components)]
    charged = float(chosen.fillna(accuracy.min()).mean())
    return {
        "component": ", ".join(components),
        "test_accuracy": float(chosen.mean(skipna=False)),
        "regret": float(accuracy.max()) - charged,
        "n_diverged": int(chosen.isna().sum()),
    }


def _in_order(rules, predictors):
    """Predictors as given, then validation, random, and the constant rules."""
    first = [*predictors, "validation", "random"]
    return [rule for rule in first if rule in rules] + [rule for rule in rules if rule not in first]


def _summary(rows, confidence, resamples, seed):
    regret = rows["regret"].to_numpy(dtype=float)
    low = high = math.nan
    if rows["dataset"].nunique() > 2:
        times = draw_clusters(rows["dataset"].to_numpy(), resamples, np.random.default_rng(seed))
        low, high = percentiles(times @ regret / times.sum(axis=1), confidence)
    return {
        "test_accuracy": float(rows["test_accuracy"].mean(skipna=False)),
        "regret": float(regret.mean()),
        "regret_max": float(regret.max()),
        "n": len(regret),
        "n_diverged": int((rows["n_diverged"] > 0).sum()),
        "ci_low": low,
        "ci_high": high,
    }
