"""The figures of what was fine-tuned: gain, learning rates, shifted test sets, economy.

Accuracies and gains are drawn in percent. A component of which every run diverged stands as a cross at the foot.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from vit_plasticity.analysis.stats import critical_rank_difference
from vit_plasticity.analysis.summary import GROUP, on_front, order_of_component
from vit_plasticity.figures import theme
from vit_plasticity.figures.data import NOTHING_TRAINED, means_over_datasets, panels_of
from vit_plasticity.vit.components import parse


def relative_gain(study, styles):
    """Per model and dataset, first the mean over datasets: gain over the linear probe, ± one deviation over seeds."""
    rows = study.trained[study.trained["probe_accuracy"].notna()]
    if rows.empty:
        return theme.note("No cell has both finished fine-tuning and a linear probe to compare with yet.")
    groups = means_over_datasets(rows, ["relative_gain", "probe_accuracy"]) + panels_of(rows)
    figure, axes = theme.panels(len(groups))
    for axis, (model, _, title, group) in zip(axes, groups, strict=True):
        measured, others = study.by_measured_plasticity(model, rows.loc[rows["model"] == model, "component"].unique())
        one = group.reindex(columns=rows.columns).set_index("component").reindex(measured + others)
        gains = 100 * one["relative_gain"]
        axis.plot(range(len(measured)), gains[measured], color="#c4c4c4", linewidth=0.9, zorder=1)
        if measured and others:
            axis.axvline(len(measured) - 0.5, color="#c4c4c4", linewidth=0.6, linestyle=":")
        deviations = 100 * one["test_accuracy_std"] / one["probe_accuracy"]
        for x, component in enumerate(one.index):
            theme.points(axis, [x], [gains.iloc[x]], styles[component], span=[deviations.iloc[x]])
            if one["n_runs"].iloc[x] == one["n_diverged"].iloc[x]:
                theme.crosses(axis, [x], styles[component])
        theme.component_axis(axis, list(one.index))
        theme.title(axis, title)
    figure.supxlabel("Component, by measured plasticity, highest first")
    figure.supylabel("Relative gain over the linear probe (%)")
    return figure


def by_lr(study, styles):
    """Per model and dataset: each run's test accuracy, learning rates from left to right, and full as a line."""
    if study.finetune.empty:
        return theme.note(NOTHING_TRAINED)
    full = study.trained[study.trained["component"] == "full"].set_index(["model", "dataset"])["test_accuracy_mean"]
    groups = panels_of(study.finetune)
    figure, axes = theme.panels(len(groups), height=1.8, columns=3)
    for axis, (model, dataset, title, runs) in zip(axes, groups, strict=True):
        measured, others = study.by_measured_plasticity(model, runs["component"].unique())
        lrs = sorted(runs["lr"].unique())
        offsets = dict(zip(lrs, np.linspace(-0.3, 0.3, len(lrs)) if len(lrs) > 1 else [0.0], strict=True))
        for x, component in enumerate(measured + others):
            style, one = styles[component], runs[runs["component"] == component]
            accuracies = 100 * one["test_accuracy"].where(one["outcome"].eq("finished"))
            means = accuracies.groupby(one["lr"]).mean().dropna()
            axis.plot([x + offsets[lr] for lr in means.index], means, color=style["color"], linewidth=0.9, alpha=0.7)
            theme.points(axis, x + one["lr"].map(offsets), accuracies, style, size=2.8)
            diverged = one.loc[one["outcome"].eq("diverged"), "lr"].unique()
            theme.crosses(axis, [x + offsets[lr] for lr in diverged], style)
        for mean in 100 * full.loc[full.index.intersection([(model, dataset)])].dropna():
            axis.axhline(mean, color=styles["full"]["color"], linewidth=0.8, linestyle="--", zorder=1)
        theme.component_axis(axis, measured + others)
        theme.title(axis, title)
    figure.supylabel("Test accuracy (%)")
    handles = [
        Line2D(
            [],
            [],
            color=styles["full"]["color"],
            linewidth=0.8,
            linestyle="--",
            label="Full, rate chosen on validation",
        )
    ]
    theme.legend(
        figure,
        [],
        styles,
        further=handles + ([theme.DIVERGED] if study.finetune["outcome"].eq("diverged").any() else []),
    )
    return figure


def shifted(study, styles):
    """Per model and dataset: accuracy on the own test set and on each shifted one, means over seeds joined by lines."""
    if study.shifted.empty:
        return theme.note("No cell is evaluated on shifted test sets: name them under evaluate_on in the study file.")
    run = [*GROUP, "seed", "lr"]
    own = study.finetune.merge(study.shifted[run].drop_duplicates(), on=run)
    own = own.assign(evaluated_on="own test set", accuracy=own["test_accuracy"])
    groups = panels_of(study.shifted)
    figure, axes = theme.panels(len(groups), height=2.1, columns=3)
    for axis, (model, dataset, title, rows) in zip(axes, groups, strict=True):
        places = ["own test set", *rows["evaluated_on"].unique()]
        both = pd.concat([own[own["model"].eq(model) & own["dataset"].eq(dataset)], rows])
        components = sorted(rows["component"].unique(), key=order_of_component)
        for offset, component in zip(np.linspace(-0.15, 0.15, len(components)), components, strict=True):
            found = 100 * both[both["component"] == component].set_index("evaluated_on")["accuracy"].astype(float)
            found = found.groupby(level=0).agg(["mean", "std"]).reindex(places)
            x = np.arange(len(places)) + offset
            axis.plot(x, found["mean"], color=styles[component]["color"], linewidth=0.7, alpha=0.6)
            theme.points(axis, x, found["mean"], styles[component], span=found["std"], size=3)
        names = [theme.plain(place.removeprefix(f"{dataset}_")) for place in places]
        axis.set_xticks(range(len(places)), names, rotation=40, ha="right", rotation_mode="anchor")
        theme.title(axis, title)
    figure.supylabel("Test accuracy (%)")
    theme.legend(figure, study.shifted["component"].unique(), styles, linestyle="-")
    return figure


COSTS = {"n_trained": "Values trained", "peak_memory_mb": "Peak memory (MB)", "step_duration_s": "Seconds per step"}
"""Columns of the summary that say what a component costs → their name on an axis."""


def against_costs(study, styles):
    """A row per model and dataset: accuracy against values trained, memory and seconds, each with its Pareto front."""
    rows = study.trained
    if rows.empty:
        return theme.note(NOTHING_TRAINED)
    groups = panels_of(rows)
    figure, axes = theme.panels(3 * len(groups), height=1.5, columns=3)
    for row, (_, _, title, group) in enumerate(groups):
        for axis, (cost, name) in zip(axes[3 * row : 3 * row + 3], COSTS.items(), strict=True):
            front = group[on_front(group, cost)].sort_values(cost)
            accuracies = 100 * front["test_accuracy_mean"]
            axis.plot(front[cost], accuracies, color=theme.LIGHT_GREY, linewidth=1.2, drawstyle="steps-post", zorder=1)
            for component, one in group.groupby("component"):
                span = 100 * one["test_accuracy_std"]
                theme.points(axis, one[cost], 100 * one["test_accuracy_mean"], styles[component], span=span)
                theme.crosses(axis, one[cost][one["test_accuracy_mean"].isna()], styles[component])
            for probe in 100 * group["probe_accuracy"].dropna().unique():
                axis.axhline(probe, color=theme.GREY, linewidth=0.8, linestyle="--", zorder=1)
            if group[cost].min() > 0:
                theme.log_x(axis)
            axis.set_xlabel(name)
        theme.title(axes[3 * row], title, loc="left")
    figure.supylabel("Test accuracy (%)")
    probe = Line2D([], [], color=theme.GREY, linewidth=0.8, linestyle="--", label="linear probe")
    front = Line2D([], [], color=theme.LIGHT_GREY, linewidth=1.2, label="front")
    theme.legend(figure, rows["component"].unique(), styles, further=[probe, front])
    return figure


def critical_difference(study, styles):
    """Per model: mean ranks over datasets on a line, best on the left; bars join what Nemenyi's test does not part.

    Source: Demšar 2006, Journal of Machine Learning Research 7:1.
    """
    models = [(m, rows) for m, rows in study.ranking.groupby("model", sort=False) if len(rows) > 1]
    if not models:
        return theme.note("Two components or more must have finished fine-tuning before they can be ranked.")
    most = max(len(rows) for _, rows in models)
    figure, axes = theme.panels(len(models), height=0.5 + 0.17 * most, columns=1)
    for axis, (model, rows) in zip(axes, models, strict=True):
        rows = rows.sort_values("rank_mean", kind="stable")
        n_datasets, k = int(rows["n_datasets"].iloc[0]), len(rows)
        needed = critical_rank_difference(k, n_datasets)
        for y, one in enumerate(rows.itertuples()):
            style = styles[one.component]
            axis.plot([one.rank_mean, k + 0.4], [y, y], color=theme.LIGHT_GREY, linewidth=0.6, zorder=1)
            theme.points(axis, [one.rank_mean], [y], style)
            axis.text(k + 0.5, y, parse(one.component).label, va="center")
        for x, (first, last) in enumerate(_alike(rows["rank_mean"].to_numpy(), needed)):
            place = 0.75 - 0.08 * x
            axis.plot([place, place], [first - 0.25, last + 0.25], color="#222222", linewidth=2, solid_capstyle="butt")
        axis.set_xlim(0.1, k + 0.4)
        axis.set_ylim(k - 0.5, -0.5)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_xticks(range(1, k + 1))
        words = f"critical difference {needed:.1f}, {n_datasets} datasets" if n_datasets > 1 else "one dataset: no test"
        axis.set_xlabel(words)
        theme.title(axis, model)
    figure.supxlabel("Mean rank by test accuracy (1 is the best)")
    return figure


def _alike(ranks, needed):
    """Longest runs (first, last), of two or more, of sorted mean ranks that lie within `needed` of each other."""
    runs = []
    for first in range(len(ranks)):
        last = int(np.flatnonzero(ranks - ranks[first] <= needed)[-1])
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs
