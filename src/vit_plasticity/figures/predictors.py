"""The figures of what was measured: plasticity by component, by depth, and against its theoretical bounds."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vit_plasticity.figures import theme
from vit_plasticity.figures.data import panels_of

NOTHING_MEASURED = "No plasticity has been measured in this study yet."


def by_component(study, styles):
    """Per model: the plasticity on each dataset (left to right in the study's order), and their mean as a line."""
    measured = study.summary[study.summary["plasticity"].notna()]
    if measured.empty:
        return theme.note(NOTHING_MEASURED)
    models = list(measured.groupby("model", sort=False))
    figure, axes = theme.panels(len(models), height=2.1, columns=3)
    for axis, (model, rows) in zip(axes, models, strict=True):
        components, _ = study.by_measured_plasticity(model, rows["component"].unique())
        datasets = list(rows["dataset"].unique())
        offsets = np.linspace(-0.28, 0.28, len(datasets)) if len(datasets) > 1 else np.zeros(1)
        for x, component in enumerate(components):
            one = rows[rows["component"] == component].set_index("dataset").reindex(datasets)
            values, mean = one["plasticity"], one["plasticity"].mean()
            axis.plot([x - 0.42, x + 0.42], [mean, mean], color=styles[component]["color"], linewidth=1.6)
            span = [values - one["plasticity_ci_low"], one["plasticity_ci_high"] - values]
            theme.points(axis, x + offsets, values, styles[component], span=span, size=2.8)
        theme.component_axis(axis, components)
        if rows["plasticity"].min() > 0 and rows["plasticity"].max() > 20 * rows["plasticity"].min():
            theme.log_y(axis)
        else:
            axis.set_ylim(bottom=0)
        theme.title(axis, model)
    figure.supylabel("Plasticity (mean rate of change)")
    return figure


def by_depth(study, styles):
    """Per model and dataset: the mean rate of change of each block, with its interval over pairs."""
    if study.rates_by_block.empty:
        return theme.note(NOTHING_MEASURED)
    groups = panels_of(study.rates_by_block)
    figure, axes = theme.panels(len(groups), sharey=True)
    for axis, (_, _, title, rows) in zip(axes, groups, strict=True):
        for component, one in rows.sort_values("block").groupby("component"):
            style, x = styles[component], one["block"] + 1
            axis.fill_between(x, one["ci_low"], one["ci_high"], color=style["color"], alpha=0.25, linewidth=0)
            axis.plot(x, one["rate_mean"], color=style["color"])
            theme.points(axis, x, one["rate_mean"], style, size=2.5)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_xlim(0.5, rows["block"].max() + 1.5)
        theme.title(axis, title)
    if study.rates_by_block["rate_mean"].min() > 0:
        theme.log_y(axes[0])
    figure.supxlabel("Block")
    figure.supylabel("Mean rate of change")
    theme.legend(figure, study.rates_by_block["component"].unique(), styles, linestyle="-")
    return figure


def against_bounds(study, styles):
    """Per model: each block's measured rate, mean over datasets, against its theoretical upper bound."""
    measured = study.rates_by_block.groupby(["model", "component", "block"], sort=False)["rate_mean"].mean()
    bounds = study.predictors[study.predictors["predictor"].eq("bound") & study.predictors["block"].notna()]
    bounds = bounds.groupby(["model", "component", "block"], sort=False)["value"].mean().rename("bound").reset_index()
    both = bounds.join(measured, on=["model", "component", "block"], how="inner")
    if both.empty:
        return theme.note("No component has both a measured plasticity and a theoretical bound yet.")
    models = list(both.groupby("model", sort=False))
    figure, axes = theme.panels(len(models), height=2.3, columns=3)
    for axis, (model, rows) in zip(axes, models, strict=True):
        for component, one in rows.groupby("component"):
            theme.points(axis, one["bound"], one["rate_mean"], styles[component], size=3)
        equal = np.array([rows["rate_mean"].min(), rows["bound"].max()]) * [0.3, 3]
        axis.plot(equal, equal, color=theme.GREY, linewidth=0.8, linestyle="--", zorder=1)
        axis.set_xlim(rows["bound"].min() / 2, rows["bound"].max() * 2)
        axis.set_ylim(rows["rate_mean"].min() / 2, rows["rate_mean"].max() * 2)
        theme.log_x(axis)
        theme.log_y(axis)
        theme.title(axis, model)
    figure.supxlabel("Theoretical upper bound")
    figure.supylabel("Measured rate of change")
    line = Line2D([], [], color=theme.GREY, linewidth=0.8, linestyle="--", label="measured = bound")
    theme.legend(figure, both["component"].unique(), styles, further=[line])
    return figure
