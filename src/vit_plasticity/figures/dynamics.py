"""The figure of training dynamics: loss, gradient norm and validation accuracy over the steps of a run."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from vit_plasticity.analysis.summary import GROUP
from vit_plasticity.figures import theme
from vit_plasticity.figures.data import panels_of

_POINTS = 40
"""A curve is drawn as the means over as many equal spans of steps, at most."""
_RUN = [*GROUP, "seed", "lr"]
_MEASURES = ["loss", "gradient_norm", "val_accuracy"]


def read_history(path, finetune, summary):
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


def draw(study, styles):
    """Per model and dataset, means over seeds at the learning rate chosen; runs that diverged, at any rate, are dotted.

    Their last finite value is a cross, at the edge of the panel where it lies beyond what the other runs span.
    """
    if study.history.empty:
        return theme.note("No fine-tuning has finished in this study yet.")
    curves, evaluations, broken = _reduced(study)
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


def _reduced(study):
    """What is drawn of the history: two dicts of frames by (model, dataset, component), and the runs that diverged.

    The former are loss and gradient norm (means over seeds and spans of steps), and validation accuracy; the latter a
    dict (model, dataset) → [(component, frame of one run up to its last finite step)].
    """
    measured = study.history[_MEASURES]
    steps = study.history.groupby(GROUP[:2])["step"].transform("max")
    span = (study.history["step"] - 1) // np.maximum(1, np.ceil(steps / _POINTS))
    history = study.history.assign(span=span, **measured.where(np.isfinite(measured)))
    finished = history[history["outcome"] == "finished"]
    curves = finished.groupby([*GROUP, "span"])[["step", "loss", "gradient_norm"]].mean().reset_index()
    evaluations = finished.groupby([*GROUP, "step"])["val_accuracy"].mean().dropna().reset_index()
    broken = {}
    unfinished = history[history["outcome"] == "diverged"].dropna(subset=["loss", "gradient_norm"])
    for (model, dataset, component, _, _), run in unfinished.groupby(_RUN):
        thin = run.sort_values("step").drop_duplicates("span", keep="last")
        broken.setdefault((model, dataset), []).append((component, thin))
    return dict(list(curves.groupby(GROUP))), dict(list(evaluations.groupby(GROUP))), broken
