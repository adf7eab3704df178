"""The figures of what was fine-tuned: gain, learning rates, shifted test sets, economy.

Accuracies and gains are drawn in percent. A component of which every run diverged stands as a cross at the foot.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from vit_plasticity.analysis.summary import GROUP, order_of_component
from vit_plasticity.figures import theme
from vit_plasticity.figures.data import means_over_datasets, panels_of

NOTHING_TRAINED = "No fine-tuning has finished in this study yet."


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


def against_fraction(study, styles):
    """Per model and dataset: accuracy against the share of parameters trained, and the linear probe as a line."""
    rows = study.trained
    if rows.empty:
        return theme.note(NOTHING_TRAINED)
    groups = panels_of(rows)
    figure, axes = theme.panels(len(groups), sharex=True)
    for axis, (_, _, title, group) in zip(axes, groups, strict=True):
        for component, one in group.groupby("component"):
            x, span = 100 * one["trained_fraction"], 100 * one["test_accuracy_std"]
            theme.points(axis, x, 100 * one["test_accuracy_mean"], styles[component], span=span)
            theme.crosses(axis, x[one["test_accuracy_mean"].isna()], styles[component])
        for probe in 100 * group["probe_accuracy"].dropna().unique():
            axis.axhline(probe, color=theme.GREY, linewidth=0.8, linestyle="--", zorder=1)
        theme.title(axis, title)
    theme.log_x(axes[0])
    figure.supxlabel("Parameters trained (%)")
    figure.supylabel("Test accuracy (%)")
    probe = Line2D([], [], color=theme.GREY, linewidth=0.8, linestyle="--", label="linear probe")
    theme.legend(figure, rows["component"].unique(), styles, further=[probe])
    return figure
