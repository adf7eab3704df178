"""The figures of one predictor, whichever: its values by component and by depth; and of the bounds and their truth."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vit_plasticity.figures import theme
from vit_plasticity.figures.data import panels_of

DEFAULT = "plasticity"


def by_component(study, styles, predictor=DEFAULT):
    """Per model: a predictor on each dataset (left to right in the study's order), and their mean as a line."""
    measured = study.values(predictor)
    if measured.empty:
        return theme.note(f"No {theme.words(predictor)} has been measured in this study yet.")
    models = list(measured.groupby("model", sort=False))
    figure, axes = theme.panels(len(models), height=2.1, columns=3)
    for axis, (model, rows) in zip(axes, models, strict=True):
        components = list(rows.groupby("component")["value"].mean().sort_values(ascending=False, kind="stable").index)
        datasets = list(rows["dataset"].unique())
        offsets = np.linspace(-0.28, 0.28, len(datasets)) if len(datasets) > 1 else np.zeros(1)
        for x, component in enumerate(components):
            one = rows[rows["component"] == component].set_index("dataset").reindex(datasets)
            values, mean = one["value"], one["value"].mean()
            axis.plot([x - 0.42, x + 0.42], [mean, mean], color=styles[component]["color"], linewidth=1.6)
            span = [values - one["ci_low"], one["ci_high"] - values]
            theme.points(axis, x + offsets, values, styles[component], span=span, size=2.8)
        theme.component_axis(axis, components)
        if _spans_decades(rows["value"]):
            theme.log_y(axis)
        elif rows["value"].min() >= 0:
            axis.set_ylim(bottom=0)
        theme.title(axis, model)
    figure.supylabel(theme.axis_label(predictor))
    return figure


def by_depth(study, styles, predictor=DEFAULT):
    """Per model and dataset: a predictor in each block, with its interval where it has one."""
    values = study.values(predictor, blocks=True)
    if values.empty:
        return theme.note(f"No {theme.words(predictor)} has been measured by block in this study yet.")
    groups = panels_of(values)
    figure, axes = theme.panels(len(groups), sharey=True)
    for axis, (_, _, title, rows) in zip(axes, groups, strict=True):
        for component, one in rows.sort_values("block").groupby("component"):
            style, x = styles[component], one["block"]
            axis.fill_between(x, one["ci_low"], one["ci_high"], color=style["color"], alpha=0.25, linewidth=0)
            axis.plot(x, one["value"], color=style["color"])
            theme.points(axis, x, one["value"], style, size=2.5)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_xlim(-0.5, rows["block"].max() + 0.5)
        theme.title(axis, title)
    if values["value"].min() > 0:
        theme.log_y(axes[0])
    figure.supxlabel("Block")
    figure.supylabel(theme.axis_label(predictor))
    theme.legend(figure, values["component"].unique(), styles, linestyle="-")
    return figure


def _spans_decades(values):
    return values.min() > 0 and values.max() > 20 * values.min()


def against_bounds(study, styles):
    """Per model: each block's measured rate, mean over datasets, against the paper's bound and the one that holds."""
    measured, *bounds = (_by_block(study, name) for name in ("plasticity", "bound", "bound_holding"))
    found = [bound.rename("bound").to_frame().join(measured.rename("rate"), how="inner") for bound in bounds]
    paper, holding = (frame[frame["bound"].gt(0) & frame["rate"].gt(0)].reset_index() for frame in found)
    if paper.empty and holding.empty:
        return theme.note("No component has both a measured plasticity and a theoretical bound yet.")
    models = list(dict.fromkeys([*paper["model"], *holding["model"]]))
    figure, axes = theme.panels(len(models), height=2.3, columns=3)
    for axis, model in zip(axes, models, strict=True):
        drawn = []
        for frame, hollow in ((paper, False), (holding, True)):
            rows = frame[frame["model"] == model]
            drawn += [rows[["bound", "rate"]].to_numpy()]
            for component, one in rows.groupby("component"):
                theme.points(axis, one["bound"], one["rate"], styles[component], size=3, hollow=hollow)
        bound, rate = np.concatenate(drawn).T
        ends = np.array([min(bound.min(), rate.min()) / 3, max(bound.max(), rate.max()) * 3])
        axis.plot(ends, ends, color=theme.GREY, linewidth=0.8, linestyle="--", zorder=1)
        axis.set_xlim(bound.min() / 2, bound.max() * 2)
        axis.set_ylim(rate.min() / 2, rate.max() * 2)
        theme.log_x(axis)
        theme.log_y(axis)
        theme.title(axis, model)
    figure.supxlabel("Upper bound")
    figure.supylabel("Measured rate of change")
    marks = {"linestyle": "", "marker": "o", "markersize": 4, "color": theme.GREY}
    handles = [Line2D([], [], color=theme.GREY, linewidth=0.8, linestyle="--", label="measured = bound")]
    if len(holding):
        handles += [Line2D([], [], label="paper's bound", **marks)]
        handles += [Line2D([], [], label="bound that holds", markerfacecolor="white", **marks)]
    components = {*paper["component"], *holding["component"]}
    theme.legend(figure, components, styles, further=handles)
    return figure


def _by_block(study, predictor):
    """Means over datasets of a predictor in each block: a series by (model, component, block)."""
    return study.values(predictor, blocks=True).groupby(["model", "component", "block"], sort=False)["value"].mean()
