"""What measurements say together: summaries, ranks and tests, from frames to frames. No paths, no torch.

A *cell group* is a (model, dataset, component) over all its seeds and learning rates: one row of the summary.
"""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd

from vit_plasticity.analysis import adaptive, stats
from vit_plasticity.runtime.intervals import image_interval
from vit_plasticity.vit import components

GROUP = ["model", "dataset", "component"]
OUTCOMES = {"accuracy": "test_accuracy_mean", "relative_gain": "relative_gain"}
"""What a component is judged by: the name in the tables → the column of the summary."""


def order_of_component(component):
    """Sort key of a component's name: the vocabulary's order for single ids, then sums."""
    return components.parse(component).order


def rates_by_block(rates, confidence, *, same_images=False):
    """One measurement in short: for each block, mean rate over pairs, with the interval that resamples images.

    rates: one job's rows. same_images: the source images are the target images; see `runtime.intervals`.
    """
    if rates.empty:
        return pd.DataFrame(columns=[*GROUP, "block", "rate_mean", "rate_std", "n_pairs", "ci_low", "ci_high"])
    blocks, values, source, target = _by_pair(rates)
    mean, low, high = image_interval(values, source, target, confidence, same_images=same_images)
    deviation = values.std(axis=1, ddof=1) if len(source) > 1 else math.nan
    table = {"block": blocks, "rate_mean": mean, "rate_std": deviation, "n_pairs": len(source)}
    return pd.DataFrame(rates[GROUP].iloc[0].to_dict() | table | {"ci_low": low, "ci_high": high})


def plasticity_of(rates, confidence, *, same_images=False):
    """The plasticity of one measurement: mean over blocks, then over pairs, with an interval as `rates_by_block`."""
    names = ["plasticity", "n_pairs", "plasticity_ci_low", "plasticity_ci_high"]
    if rates.empty:
        return pd.DataFrame({name: pd.Series(dtype=rates[name].dtype) for name in GROUP}).assign(
            plasticity=math.nan, n_pairs=0, plasticity_ci_low=math.nan, plasticity_ci_high=math.nan
        )
    _, values, source, target = _by_pair(rates)
    mean, low, high = image_interval(values.mean(axis=0), source, target, confidence, same_images=same_images)
    numbers = dict(zip(names, (mean, len(source), low, high), strict=True))
    return pd.DataFrame([rates[GROUP].iloc[0].to_dict() | numbers])


def with_ranges(means, rates, runs):
    """Measured plasticity, and that of each fine-tuned range of blocks or mask: the mean over its blocks, no interval.

    means: rows of `plasticity_of`; rates: of `rates_by_block`; runs: of `finetune`.
    """
    wanted = []
    for model, dataset, name in runs[GROUP].drop_duplicates().itertuples(index=False):
        component = components.parse(name)
        if component.base and component.base != component:
            ((_, blocks),) = component.terms
            wanted.append([model, dataset, component.base.name, name, blocks])
    if not wanted:
        return means
    found = pd.DataFrame(wanted, columns=[*GROUP, "named", "blocks"]).merge(rates, on=GROUP)
    trained = [blocks is None or block in blocks for block, blocks in zip(found["block"], found["blocks"], strict=True)]
    found = found[trained].drop(columns="component").rename(columns={"named": "component"})
    of_ranges = found.groupby(GROUP, sort=False).agg(plasticity=("rate_mean", "mean"), n_pairs=("n_pairs", "max"))
    return pd.concat([means, of_ranges.reset_index()], ignore_index=True)


def _by_pair(rates):
    """One job's rows as arrays: blocks (B,), rates (B, P), and the images of each pair, (P,) each."""
    block, pair, rate = (rates[name].to_numpy() for name in ("block", "pair", "rate"))
    order, blocks = np.lexsort((pair, block)), np.unique(block)
    values = rate[order].reshape(len(blocks), -1)
    source, target = (rates[name].to_numpy()[order[: values.shape[1]]] for name in ("source_image", "target_image"))
    return blocks, values, source, target


def accuracy_of(runs):
    """Per cell group: the learning rate chosen on validation, and what it gives on test. Indexed by GROUP.

    Chosen is the rate that finished in the most seeds, then the one of highest mean validation accuracy, then the
    smallest; test accuracy never enters. So a rate at which any seed diverged yields to one at which all finished;
    where none did, the means are over the seeds that finished (n_seeds of them). Where all runs diverged, n_seeds is 0
    and the accuracies are null. lr_spread is the largest minus the smallest seed-mean test accuracy over the rates that
    finished at all; null if only one did. resolved names all that an adaptive component was in the seeds.
    """
    finished = runs[runs["outcome"].eq("finished") & runs["val_accuracy"].notna()]
    by_lr = finished.groupby([*GROUP, "lr"]).agg(
        n_seeds=("seed", "nunique"),
        val_accuracy_mean=("val_accuracy", "mean"),
        test_accuracy_mean=("test_accuracy", "mean"),
        test_accuracy_std=("test_accuracy", "std"),
    )
    by_lr = by_lr.reset_index().sort_values(["n_seeds", "val_accuracy_mean", "lr"], ascending=[False, False, True])
    chosen = by_lr.drop_duplicates(GROUP).set_index(GROUP)
    over_lrs = by_lr.groupby(GROUP)["test_accuracy_mean"].agg(["max", "min", "count"])
    spread = (over_lrs["max"] - over_lrs["min"]).where(over_lrs["count"] > 1)
    groups = runs.assign(
        diverged=runs["outcome"].eq("diverged"),
        fraction=runs["n_trained"] / runs["n_parameters"],
    ).groupby(GROUP)
    counts = groups.agg(
        n_runs=("lr", "size"),
        n_diverged=("diverged", "sum"),
        trained_fraction=("fraction", "mean"),
        n_trained=("n_trained", "max"),
        peak_memory_mb=("peak_memory_mb", "max"),
        step_duration_s=("step_duration_s", "mean"),
        resolved=("resolved", lambda names: ", ".join(names.dropna().unique()) or None),
    )
    return counts.join(chosen).assign(lr_spread=spread).fillna({"n_seeds": 0})


def summarise(*, runs, plasticity, predictors, probe, shifted):
    """The summary: one row per cell group that was trained or whose plasticity was measured.

    runs, probe, shifted: rows of their stages; plasticity: rows of `plasticity_of`; predictors: of the table, whole
    components. Any may be empty. bound is the mean over blocks; shifted_accuracy_mean is over the datasets
    evaluated on and those seeds whose own run has the learning rate that the summary reports.
    """
    summary = accuracy_of(runs).join(plasticity.set_index(GROUP).drop(columns="n_pairs"), how="outer").reset_index()
    summary = summary.fillna({"n_runs": 0, "n_diverged": 0, "n_seeds": 0})
    bound = predictors[predictors["predictor"].eq("bound")].set_index(GROUP)["value"].rename("bound")
    reported = shifted.merge(summary[[*GROUP, "lr"]].astype({"lr": float}), on=[*GROUP, "lr"])
    elsewhere = reported.groupby(GROUP)["accuracy"].mean().rename("shifted_accuracy_mean")
    probed = probe.set_index(["model", "dataset"])["accuracy"].rename("probe_accuracy")
    summary = summary.join(bound, on=GROUP).join(elsewhere, on=GROUP).join(probed, on=["model", "dataset"])
    summary["on_front"] = on_front(summary, "n_trained")
    return _ordered(_compared(summary), like=pd.concat([runs[GROUP], plasticity[GROUP]]))


def on_front(summary, cost):
    """Whether no other component of the same model and dataset is as accurate at less cost, or better at no more.

    cost: a column of the summary. A component without an accuracy or a cost is on no front.
    """
    front = pd.Series(False, index=summary.index)
    for _, rows in summary.groupby(GROUP[:2], sort=False):
        accuracy, price = (rows[name].to_numpy(dtype=float) for name in ("test_accuracy_mean", cost))
        as_good = (accuracy[:, None] >= accuracy) & (price[:, None] <= price)
        better = as_good & ((accuracy[:, None] > accuracy) | (price[:, None] < price))
        front[rows.index] = ~better.any(axis=0) & (accuracy == accuracy) & (price == price)
    return front


def from_accuracies(frame, model):
    """A summary, as far as it goes, from a printed table of accuracies in percent, so that it can be tested as ours.

    frame: one row per dataset; columns dataset, linear_probe, and for each component its id (mean) and id_std.
    """
    named = [c for c in frame.columns if c in components.LABELS]
    rows = [
        pd.DataFrame({
            "model": model,
            "dataset": frame["dataset"],
            "component": component,
            "test_accuracy_mean": frame[component] / 100,
            "test_accuracy_std": frame[f"{component}_std"] / 100,
            "probe_accuracy": frame["linear_probe"] / 100,
            "plasticity": math.nan,
            "n_runs": frame[component].notna().astype(int),
        })
        for component in named
    ]  # fmt: skip
    return _compared(pd.concat(rows, ignore_index=True))


def rank(summary):
    """Per (model, component), over datasets: mean plasticity, accuracy, relative gain and rank (1 is best).

    Only datasets in which every fine-tuned component of the model was run count (n_datasets of them), so that means
    compare like with like. Ties share the mean of their ranks. A component of which every run diverged on a dataset
    ranks last there and has no mean accuracy. Adaptive ones train what another one may train too, and have no rank.
    Sorted by mean rank.
    """
    fixed = ~summary["component"].map(adaptive.is_adaptive).astype(bool)
    trained = summary[(summary["n_runs"] > 0) & fixed]
    n_present = trained.groupby(GROUP[:2])["component"].transform("nunique")
    shared = trained[n_present == trained.groupby("model")["component"].transform("nunique")]
    ranks = shared.groupby(GROUP[:2])["test_accuracy_mean"].rank(ascending=False, na_option="bottom")
    table = shared.assign(rank=ranks).groupby(["model", "component"], sort=False, as_index=False)
    table = table.agg(
        n_datasets=("dataset", "nunique"),
        plasticity_mean=("plasticity", lambda column: column.mean(skipna=False)),
        test_accuracy_mean=("test_accuracy_mean", lambda column: column.mean(skipna=False)),
        relative_gain_mean=("relative_gain", lambda column: column.mean(skipna=False)),
        rank_mean=("rank", "mean"),
    )
    models = {model: i for i, model in enumerate(summary["model"].unique())}
    by_model = {"key": lambda column: column.map(models) if column.name == "model" else column}
    return table.sort_values(["model", "rank_mean"], kind="stable", ignore_index=True, **by_model)


def paired_tests(summary):
    """Every two components of a model, paired by dataset, per outcome; differences are component_a − component_b.

    An adaptive component stands in the pairs of `adaptive.pairs` alone. Holm's adjustment is over the pairs of one
    model and outcome, those of adaptive components by themselves, for each kind of test.
    """
    result = []
    for (model, rows), (outcome, column) in itertools.product(summary.groupby("model", sort=False), OUTCOMES.items()):
        wide = rows.pivot(index="dataset", columns="component", values=column).dropna(axis=1, how="all")
        fixed = sorted((c for c in wide if not adaptive.is_adaptive(c)), key=order_of_component)
        chosen = [pair for pair in adaptive.pairs(rows[rows["n_runs"] > 0]) if {*pair} <= {*wide}]
        for pairs in (itertools.combinations(fixed, 2), chosen):
            family = []
            for a, b in pairs:
                found = dataclasses.asdict(stats.paired(wide[a], wide[b]))
                n = {"n_datasets": found.pop("n")}
                family.append({"model": model, "outcome": outcome, "component_a": a, "component_b": b} | n | found)
            for kind in ("t", "wilcoxon"):
                adjusted = stats.holm([row[f"{kind}_p_value"] for row in family])
                for row, p_value in zip(family, adjusted, strict=True):
                    row[f"{kind}_p_value_holm"] = p_value
            result += family
    return pd.DataFrame(result)


def _compared(summary):
    """With what an accuracy is compared to: the probe (relative gain), the head alone, and full fine-tuning (gap)."""
    accuracy, probe = summary["test_accuracy_mean"], summary["probe_accuracy"]
    full, head = (_accuracy_beside(summary, component) for component in ("full", "head"))
    relative_gain = (accuracy - probe) / probe.where(probe > 0, math.nan)
    return summary.assign(relative_gain=relative_gain, gain_over_head=accuracy - head, gap_to_full=full - accuracy)


def _accuracy_beside(summary, component):
    """For every row, the test accuracy of one component on the same model and dataset."""
    own = summary[summary["component"].eq(component)].set_index(GROUP[:2])["test_accuracy_mean"]
    return summary[GROUP[:2]].join(own, on=GROUP[:2])["test_accuracy_mean"]


def _ordered(summary, like):
    """Models and datasets in the order in which they first appear in `like`, components in the vocabulary's."""
    keys = {"component": {c: i for i, c in enumerate(sorted(summary["component"].unique(), key=order_of_component))}}
    for name in GROUP[:2]:
        keys[name] = {value: i for i, value in enumerate(like[name].unique())}
    return summary.sort_values(GROUP, key=lambda column: column.map(keys[column.name]), ignore_index=True)
