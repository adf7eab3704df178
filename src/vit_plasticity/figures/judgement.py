"""The figures that judge predictors: correlation with accuracy, regret of the rules, and each one's values against it.

`parameters`, the null, stands first in all of them.
"""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vit_plasticity.analysis.judgement import GIVEN_NULL, NULL, is_single
from vit_plasticity.analysis.summary import GROUP, order_of_component
from vit_plasticity.figures import theme
from vit_plasticity.figures.data import panels_of
from vit_plasticity.vit.components import parse

_DARK = "#222222"
_KNOWN_LATER = "validation"


def correlation(study, styles):
    """One row per predictor: Spearman's coefficient within datasets, its interval, and what is left given the null."""
    rows = study.correlation[study.correlation["outcome"].eq("accuracy") & study.correlation["estimate"].notna()]
    groups = _pooled(rows)
    if not groups:
        return theme.note("No predictor has a value for three components of a dataset that were fine-tuned yet.")
    names = study.predictor_names
    figure, axes = theme.panels(len(groups), height=0.5 + 0.2 * len(names), columns=2, sharey=True)
    for axis, (title, found) in zip(axes, groups, strict=True):
        axis.axvline(0, color=theme.GREY, linewidth=0.6)
        for y, name in enumerate(names):
            own = found[found["predictor"].eq(name)].set_index("statistic")
            for statistic, offset, hollow in (("spearman", -0.12, False), (GIVEN_NULL, 0.2, True)):
                if statistic in own.index:
                    _interval(axis, y + offset, own.loc[statistic], "estimate", name, hollow=hollow)
        axis.set_xlim(-1.05, 1.05)
        _rows_axis(axis, names)
        theme.title(axis, title)
    figure.supxlabel("Spearman's correlation with test accuracy, within datasets")
    handles = [_mark(theme.NULL_COLOR, "the null"), _mark(_DARK, "predictor"), _mark(_DARK, "given the null", True)]
    theme.legend(figure, [], styles, further=handles)
    return figure


def regret(study, styles):
    """One row per rule: its mean regret with the interval over datasets, each dataset's, and the largest."""
    groups = _pooled(study.regret)
    if not groups:
        return theme.note("No component has finished fine-tuning in this study yet.")
    rules = list(dict.fromkeys(study.regret["rule"]))
    rules.sort(key=lambda rule: rule != NULL)
    figure, axes = theme.panels(len(groups), height=0.5 + 0.17 * len(rules), columns=2, sharey=True)
    single = study.regret[study.regret["scope"].eq("dataset")]
    for axis, (title, found) in zip(axes, groups, strict=True):
        model = found["model"].iloc[0]
        below = single if model is None or model != model else single[single["model"].eq(model)]
        for y, rule in enumerate(rules):
            each = 100 * below.loc[below["rule"].eq(rule), "regret"]
            axis.plot(each, np.full(len(each), y), linestyle="", marker="|", markersize=5, color="#a0a0a0")
            for _, one in found[found["rule"].eq(rule)].iterrows():
                _interval(axis, y, one, "regret", rule, scale=100)
        axis.set_xlim(left=min(-0.02 * axis.get_xlim()[1], -0.01))
        _rows_axis(axis, rules)
        theme.title(axis, title)
    figure.supxlabel("Regret: points of test accuracy below the best single component")
    each = Line2D([], [], linestyle="", marker="|", markersize=5, color="#a0a0a0", label="one dataset")
    theme.legend(figure, [], styles, further=[_mark(theme.NULL_COLOR, "the null"), _mark(_DARK, "mean"), each])
    return figure


def all_against_accuracy(study, styles):
    """One panel per predictor (and model): accuracy against its value, both as ranks within their dataset, averaged.

    Ranks make predictors of any unit comparable; the line joins equal ranks.
    """
    single = study.trained[study.trained["component"].map(is_single).astype(bool)]
    several = single["model"].nunique() > 1
    groups = []
    for model, trained in single.groupby("model", sort=False):
        for name in study.predictor_names:
            rows = _beside(trained, study.values(name))
            ranks = rows.groupby("dataset")[["value", "test_accuracy_mean"]].rank()
            if len(rows):
                title = theme.words(name) + (f"\n{model}" if several else "")
                groups.append((title, ranks.assign(component=rows["component"])))
    if not groups:
        return theme.note("No component has both a predictor and an accuracy yet.")
    figure, axes = theme.panels(len(groups), height=1.6, sharex=True, sharey=True)
    for axis, (title, ranks) in zip(axes, groups, strict=True):
        for component, one in ranks.groupby("component"):
            theme.points(axis, one["value"], one["test_accuracy_mean"], styles[component], size=3, alpha=0.45)
            theme.points(axis, [one["value"].mean()], [one["test_accuracy_mean"].mean()], styles[component], size=5)
        top = ranks[["value", "test_accuracy_mean"]].to_numpy().max()
        axis.plot([1, top], [1, top], color=theme.LIGHT_GREY, linewidth=0.8, linestyle="--", zorder=1)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        theme.title(axis, title)
    figure.supxlabel("Rank of the predictor within its dataset (1 is the smallest)")
    figure.supylabel("Rank of test accuracy")
    theme.legend(figure, single["component"].unique(), styles)
    return figure


def against_accuracy(study, styles, predictor="plasticity"):
    """Per model and dataset, first pooled within datasets: accuracy against a predictor, and Pearson's r with interval.

    In a pooled panel both are differences from the dataset's mean, as in the coefficient that stands there.
    """
    rows = _beside(study.trained, study.values(predictor))
    if rows.empty:
        return theme.note(f"No component has both a {theme.words(predictor)} and an accuracy yet.")
    groups = _centred(rows) + panels_of(rows)
    figure, axes = theme.panels(len(groups), height=1.75)
    for axis, (model, dataset, title, group) in zip(axes, groups, strict=True):
        for component, one in group.groupby("component"):
            span = None if dataset is None else 100 * one["test_accuracy_std"]
            theme.points(axis, one["value"], 100 * one["test_accuracy_mean"], styles[component], span=span)
        axis.margins(x=0.1)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.45 * (high - low))  # room for the words
        words = _coefficient(study.correlation, predictor, model, dataset)
        axis.text(0.04, 0.96, words, va="top", transform=axis.transAxes)
        theme.title(axis, title)
    figure.supxlabel(theme.axis_label(predictor))
    figure.supylabel("Test accuracy (%)")
    theme.legend(figure, rows["component"].unique(), styles)
    return figure


def by_block(study, styles):
    """Per model, a heat map of each predictor that has values by block: components down, blocks across."""
    rows = study.predictors[study.predictors["block"].notna()]
    groups = list(rows.groupby(["model", "predictor"], sort=False))
    if not groups:
        return theme.note("No predictor has values by block in this study yet.")
    several = rows["model"].nunique() > 1
    figure, axes = theme.panels(len(groups), height=1.5, columns=3)
    for axis, ((model, name), found) in zip(axes, groups, strict=True):
        wide = found.groupby(["component", "block"])["value"].mean().unstack().astype(float)
        wide = wide.loc[sorted(wide.index, key=order_of_component)]
        logarithmic = wide.min().min() > 0 and wide.max().max() > 20 * wide.min().min()
        norm = LogNorm(wide.min().min(), wide.max().max()) if logarithmic else None
        image = axis.imshow(wide, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest")
        axis.set_yticks(range(len(wide)), [parse(component).label for component in wide.index])
        blocks = range(0, len(wide.columns), max(1, len(wide.columns) // 6))
        axis.set_xticks(blocks, [int(wide.columns[i]) for i in blocks])
        axis.grid(visible=False)
        figure.colorbar(image, ax=axis, pad=0.02).ax.tick_params(which="both", labelsize=5.5, length=1.5)
        theme.title(axis, theme.words(name) + (f"\n{model}" if several else ""))
    figure.supxlabel("Block")
    return figure


def _beside(trained, values):
    """Rows of the summary that have an accuracy, with the `value` of a predictor, where there are both."""
    if trained.empty or values.empty:
        return trained.iloc[:0].assign(value=np.nan)
    return trained.merge(values[[*GROUP, "value"]], on=GROUP).dropna(subset=["value", "test_accuracy_mean"])


def _centred(rows):
    """Panels like those of `panels_of`, one per model with two datasets or more: differences from each one's mean."""
    columns = ["value", "test_accuracy_mean"]
    groups = rows.groupby(["model", "dataset"])
    centred = rows.assign(**{c: rows[c] - groups[c].transform("mean") for c in columns})
    panels = []
    for model, group in centred[groups["component"].transform("count") > 1].groupby("model", sort=False):
        n_datasets = group["dataset"].nunique()
        name = f"{n_datasets} datasets, each centred"
        if n_datasets > 1:
            panels.append((model, None, f"{name}\n{model}" if rows["model"].nunique() > 1 else name, group))
    return panels


def _coefficient(correlation, predictor, model, dataset):
    """Pearson's r of a predictor with accuracy in words, for one dataset, or pooled over those of a model."""
    wanted = (
        correlation["predictor"].eq(predictor)
        & correlation["scope"].eq("model" if dataset is None else "dataset")
        & correlation["model"].eq(model)
        & correlation["outcome"].eq("accuracy")
        & correlation["statistic"].eq("pearson")
    )
    if dataset is not None:
        wanted &= correlation["dataset"].eq(dataset)
    if not wanted.any():
        return ""
    one = correlation[wanted].iloc[0]
    if np.isnan(one["estimate"]):
        return f"r undefined, n = {one['n']}"
    signed = {name: f"{one[name]:.2f}".replace("-", "−") for name in ("estimate", "ci_low", "ci_high")}
    interval = "no interval" if np.isnan(one["ci_low"]) else f"[{signed['ci_low']}, {signed['ci_high']}]"
    p_value = "p < 0.001" if one["p_value"] < 0.001 else f"p = {one['p_value']:.3f}"
    return f"r = {signed['estimate']} {interval}\n{p_value}, n = {one['n']}"


def _pooled(rows):
    """(title, rows) of each model, and of all where there are several."""
    groups = [(model, one) for model, one in rows[rows["scope"].eq("model")].groupby("model", sort=False)]
    if len(groups) > 1:
        groups.insert(0, ("all models", rows[rows["scope"].eq("all")]))
    return groups


def _interval(axis, y, row, column, name, *, hollow=False, scale=1):
    low, value, high = (scale * row[key] for key in ("ci_low", column, "ci_high"))
    colour = theme.NULL_COLOR if name == NULL else theme.GREY if name == _KNOWN_LATER else _DARK
    axis.plot([low, high], [y, y], color=colour, linewidth=0.9)
    face = "white" if hollow else colour
    axis.plot([value], [y], marker="o", markersize=3.6, color=colour, markerfacecolor=face, markeredgewidth=0.8)


def _rows_axis(axis, names):
    axis.set_yticks(range(len(names)), [theme.words(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x")


def _mark(colour, label, hollow=False):
    face = "white" if hollow else colour
    return Line2D([], [], linestyle="", marker="o", markersize=4, color=colour, markerfacecolor=face, label=label)
