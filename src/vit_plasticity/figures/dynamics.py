"""The figures of training dynamics: loss, gradient norms and validation accuracy over the steps of a run."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import seaborn as sns
from matplotlib.lines import Line2D

from vit_plasticity.analysis.summary import GROUP
from vit_plasticity.figures import theme
from vit_plasticity.figures.data import NOTHING_TRAINED, panels_of
from vit_plasticity.vit.components import parse

_POINTS = 40
"""A curve is drawn as the means over as many equal spans of steps, at most."""
_RUN = [*GROUP, "seed", "lr"]
_MEASURES = ["loss", "gradient_norm", "val_accuracy"]
_BY_LR = ["model", "component", "lr"]
_MEASURES_BY_LR = [*_MEASURES, "component_gradient_norm"]


def _read_drawn(path, finetune, summary):
    """The history, with its outcome, of the runs that are drawn: those at a chosen learning rate, and the diverged.

    path: the history table, of which only these rows are held in memory; all rows of a large study are gigabytes.
    """
    chosen = finetune.merge(summary[[*GROUP, "lr"]], on=[*GROUP, "lr"])
    diverged = finetune[finetune["outcome"] == "diverged"]
    drawn = pd.concat([chosen, diverged])[[*_RUN, "outcome"]].drop_duplicates()
    columns = [*_RUN, "step", *_MEASURES]
    batches = pq.ParquetFile(path).iter_batches(1 << 20, columns=columns)
    rows = [batch.to_pandas().merge(drawn, on=_RUN) for batch in batches]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=[*columns, "outcome"])


def _read_by_lr(path, finetune):
    """The history of every run in short: means over datasets, seeds and spans of a run's steps.

    Columns model, component, lr, share (of the steps done, in the middle of the span), and the measures; of these only
    finite values count. path: the history table, of which one piece at a time is held in memory.
    """
    runs, parts = finetune[[*_RUN, "steps"]], []
    for batch in pq.ParquetFile(path).iter_batches(1 << 20, columns=[*_RUN, "step", *_MEASURES_BY_LR]):
        rows = batch.to_pandas().merge(runs, on=_RUN)
        rows["span"] = (rows["step"] - 1) * _POINTS // rows["steps"]
        finite = rows[_MEASURES_BY_LR].where(np.isfinite(rows[_MEASURES_BY_LR]))
        parts.append(rows[[*_BY_LR, "span"]].join(finite).groupby([*_BY_LR, "span"]).agg(["sum", "count"]))
    if not parts:
        return pd.DataFrame(columns=[*_BY_LR, "share", *_MEASURES_BY_LR])
    total = pd.concat(parts).groupby(level=[*_BY_LR, "span"]).sum()
    counts = total.xs("count", axis=1, level=1)
    means = (total.xs("sum", axis=1, level=1) / counts.where(counts > 0)).reset_index()
    return means.assign(share=(means["span"] + 0.5) / _POINTS).drop(columns="span")


def by_lr(study, styles):
    """Per component, each learning rate in a shade: loss, the gradient norms of all and of the component, accuracy."""
    history = _read_by_lr(study.history, study.finetune)
    if history.empty:
        return theme.note(NOTHING_TRAINED)
    groups = list(study.trained[["model", "component"]].drop_duplicates().itertuples(index=False))
    several = study.trained["model"].nunique() > 1
    figure, axes = theme.panels(3 * len(groups), height=1.25, columns=3)
    rates = sorted(history["lr"].unique())
    shades = dict(zip(rates, sns.color_palette("flare", len(rates)), strict=True))
    for row, (model, component) in enumerate(groups):
        loss, norm, accuracy = axes[3 * row : 3 * row + 3]
        rows = history.query("model == @model and component == @component")
        for lr, run in rows.groupby("lr"):
            share, look = 100 * run["share"], {"color": shades[lr]}
            loss.plot(share, run["loss"], **look)
            norm.plot(share, run["gradient_norm"], linestyle="--", linewidth=0.7, **look)
            norm.plot(share, run["component_gradient_norm"], **look)
            evaluated = run.dropna(subset=["val_accuracy"])
            accuracy.plot(100 * evaluated["share"], 100 * evaluated["val_accuracy"], marker=".", **look)
        theme.log_y(norm)
        label = parse(component).label
        theme.title(loss, f"{label}\n{model}" if several else label, loc="left")
        for axis, name in ((loss, "Loss"), (norm, "Gradient norm"), (accuracy, "Val. accuracy (%)")):
            axis.set_ylabel(name)
            axis.margins(x=0.02)
    figure.supxlabel("Steps done (%)")
    lines = [Line2D([], [], color=shades[lr], label=f"{lr:g}") for lr in rates]
    lines += [Line2D([], [], color=theme.GREY, label="norm of the component")]
    lines += [Line2D([], [], color=theme.GREY, linestyle="--", linewidth=0.7, label="of all that trains")]
    theme.legend(figure, [], styles, further=lines)
    return figure


def draw(study, styles):
    """Per model and dataset, means over seeds at the learning rate chosen; runs that diverged, at any rate, are dotted.

    Their last finite value is a cross, at the edge of the panel where it lies beyond what the other runs span.
    """
    history = _read_drawn(study.history, study.finetune, study.summary)
    if history.empty:
        return theme.note(NOTHING_TRAINED)
    curves, evaluations, broken = _reduced(history)
    groups = panels_of(study.trained)
    figure, axes = theme.panels(3 * len(groups), height=1.25, columns=3)
    for row, (model, dataset, title, group) in enumerate(groups):
        loss, norm, accuracy = axes[3 * row : 3 * row + 3]
        for component in group["component"]:
            key, colour = (model, dataset, component), styles[component]["color"]
            if key in curves:
                loss.plot(curves[key]["step"], curves[key]["loss"], color=colour)
                norm.plot(curves[key]["step"], curves[key]["gradient_norm"], color=colour)
            if key in evaluations:
                steps, accuracies = evaluations[key]["step"], 100 * evaluations[key]["val_accuracy"]
                accuracy.plot(steps, accuracies, color=colour)
                theme.points(accuracy, steps, accuracies, styles[component], size=2.5)
        theme.log_y(norm)
        for axis, column in ((loss, "loss"), (norm, "gradient_norm")):
            limits = axis.get_ylim() if axis.lines else (-np.inf, np.inf)
            for component, run in broken.get((model, dataset), []):
                style, values = styles[component], np.clip(run[column], *limits)
                axis.plot(run["step"], values, color=style["color"], linewidth=0.6, linestyle=":")
                theme.crosses(axis, run["step"].tail(1), style, y=values.tail(1))
        theme.title(loss, title, loc="left")
        for axis, name in ((loss, "Loss"), (norm, "Gradient norm"), (accuracy, "Val. accuracy (%)")):
            axis.set_ylabel(name)
            axis.margins(x=0.02)
    figure.supxlabel("Step")
    diverged = [theme.DIVERGED] if broken else []
    theme.legend(figure, study.trained["component"].unique(), styles, linestyle="-", marker=False, further=diverged)
    return figure


def _reduced(history):
    """What is drawn of the history: two dicts of frames by (model, dataset, component), and the runs that diverged.

    The former are loss and gradient norm (means over seeds and spans of steps), and validation accuracy; the latter a
    dict (model, dataset) → [(component, frame of one run up to its last finite step)].
    """
    measured = history[_MEASURES]
    steps = history.groupby(GROUP[:2])["step"].transform("max")
    span = (history["step"] - 1) // np.maximum(1, np.ceil(steps / _POINTS))
    history = history.assign(span=span, **measured.where(np.isfinite(measured)))
    finished = history[history["outcome"] == "finished"]
    curves = finished.groupby([*GROUP, "span"])[["step", "loss", "gradient_norm"]].mean().reset_index()
    evaluations = finished.groupby([*GROUP, "step"])["val_accuracy"].mean().dropna().reset_index()
    broken = {}
    unfinished = history[history["outcome"] == "diverged"].dropna(subset=["loss", "gradient_norm"])
    for (model, dataset, component, _, _), run in unfinished.groupby(_RUN):
        thin = run.sort_values("step").drop_duplicates("span", keep="last")
        broken.setdefault((model, dataset), []).append((component, thin))
    return dict(list(curves.groupby(GROUP))), dict(list(evaluations.groupby(GROUP))), broken
