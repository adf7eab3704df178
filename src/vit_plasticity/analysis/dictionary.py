"""The data dictionary: every column of every table, its kind, its name for people, and what it means.

docs/columns.md is written from it: python -m vit_plasticity.analysis.dictionary docs/columns.md
"""

import sys
from pathlib import Path
from typing import NamedTuple


class Column(NamedTuple):
    """kind: "text", "whole", "truth", "number", "seconds", "share" in [0, 1], or "points", a difference of shares.

    A share is stored in [0, 1] and shown in percent, points are stored in [−1, 1] and shown in percentage points.
    label: the head of the column where people read it. meaning: one sentence without a full stop.
    """

    kind: str
    label: str
    meaning: str


COLUMNS = {
    "model": Column("text", "Model", "the model's name in the study"),
    "dataset": Column("text", "Dataset", "the dataset's name in the study"),
    "component": Column(
        "text",
        "Component",
        "what was trained or measured; where a rule's choices tie, all of them; null for the pretrained model",
    ),
    "seed": Column("whole", "Seed", "seed of batches, augmentation and the new head"),
    "block": Column("whole", "Block", "block of the model, from 0; null for a component as a whole, and the embedding"),
    "pair": Column("whole", "Pair", "number of the pair of images, from 0"),
    "source_image": Column("whole", "Source image", "position of the pair's image in the source's test split"),
    "target_image": Column("whole", "Target image", "position of the pair's image in the dataset's test split"),
    "rate": Column("number", "Rate of change", "‖f(x) − f(y)‖ / ‖x − y‖ of one block and pair"),
    "rate_mean": Column("number", "Rate of change", "mean rate of change over pairs"),
    "rate_std": Column("number", "Rate, sd", "standard deviation of the rate of change over pairs"),
    "n_pairs": Column("whole", "Pairs", "pairs of images measured"),
    "ci_low": Column("number", "Interval from", "lower end of the confidence interval; null where there is none"),
    "ci_high": Column("number", "Interval to", "upper end of the confidence interval; null where there is none"),
    "bound": Column("number", "Bound", "the paper's upper bound of the rate of change, mean over blocks"),
    "accuracy": Column("share", "Accuracy", "correct / total on the test split named"),
    "converged": Column("truth", "Converged", "whether the fit of the probe converged"),
    "n_iter": Column("whole", "Iterations", "iterations of the fit"),
    "n_train": Column("whole", "Train images", "images in the train split"),
    "n_val": Column("whole", "Val. images", "images in the validation split"),
    "n_test": Column("whole", "Test images", "images in the test split"),
    "image_size": Column("whole", "Image size", "pixels of a side of the images that the model takes"),
    "stored_side": Column("number", "Stored side", "median over images of the pixels of the shorter side, as stored"),
    "n_features": Column("whole", "Features", "features that the probe is fitted on"),
    "duration_s": Column("seconds", "Duration (s)", "wall-clock seconds"),
    "lr": Column(
        "number", "Learning rate", "peak learning rate of the run; in the summary the one chosen on validation"
    ),
    "outcome": Column("text", "Outcome", "of a run: finished or diverged; of a statistic: what is predicted"),
    "steps": Column("whole", "Steps", "optimiser steps asked for"),
    "steps_trained": Column("whole", "Steps trained", "steps until the run ended; fewer where it diverged"),
    "best_step": Column("whole", "Best step", "step of the highest validation accuracy, whose weights are tested"),
    "val_accuracy": Column("share", "Val. accuracy", "accuracy on validation; of a run, at its best step"),
    "test_accuracy": Column("share", "Test accuracy", "accuracy on test at the best step, read once; null if diverged"),
    "test_balanced_accuracy": Column(
        "share", "Balanced acc.", "mean over classes of the share of their test images that are found; null if diverged"
    ),
    "largest_class_share": Column("share", "Largest class", "test accuracy of always naming the largest class"),
    "best_step_before_divergence": Column(
        "whole", "Best step before", "of a diverged run: its best validated step; neither chosen nor tested"
    ),
    "val_accuracy_before_divergence": Column(
        "share", "Val. acc. before", "of a diverged run: validation accuracy at that step"
    ),
    "chosen": Column("truth", "Chosen", "whether validation chose this run among those of its cell"),
    "n_parameters": Column("whole", "Parameters", "values in the whole model, its new head included"),
    "n_trained": Column("whole", "Trained", "values that train, the new head and the final norm included"),
    "batch_size": Column("whole", "Batch size", "images per optimiser step"),
    "peak_memory_mb": Column("number", "Memory (MB)", "peak memory of the run, in 10⁶ bytes"),
    "resolved": Column(
        "text", "Resolved to", "what an adaptive component trained, over seeds all of them; null of every other"
    ),
    "git_commit": Column("text", "Commit", "commit of the code that trained; null outside a checkout"),
    "device": Column("text", "Device", "what computed"),
    "step": Column("whole", "Step", "optimiser step, from 1; of a path, 0 is its start"),
    "loss": Column("number", "Loss", "training loss of the step; of a point of a landscape, mean over its images"),
    "gradient_norm": Column("number", "Gradient norm", "norm of the gradient before clipping"),
    "component_gradient_norm": Column(
        "number", "Its gradient norm", "that of the component alone, without the head and the final norm"
    ),
    "step_lr": Column("number", "Step's rate", "learning rate of this step"),
    "val_loss": Column("number", "Val. loss", "validation loss; null at steps without an evaluation"),
    "evaluated_on": Column("text", "Evaluated on", "dataset on whose test split the cell's chosen run was evaluated"),
    "tap": Column(
        "text", "Tap", "where features are taken: embed, or the residual stream after the block's mha or ffn was added"
    ),
    "part": Column("text", "Part", "of a landscape: a point of the grid or of the path"),
    "x": Column("number", "x", "along the first direction of the path, from its end; of a path, its projection"),
    "y": Column("number", "y", "along the second direction of the path, from its end; of a path, its projection"),
    "distance": Column("number", "Distance", "of a point of the path from the plane of the grid, null for the grid"),
    "share_x": Column("share", "Share of x", "of the squared distances of the path from its end, what x accounts for"),
    "share_y": Column("share", "Share of y", "of the squared distances of the path from its end, what y accounts for"),
    "end_error": Column(
        "number",
        "Error of the end",
        "distance of the path's end from the cell's tensors, over its start's; 0: equal",
    ),
    "plasticity": Column("number", "Plasticity", "mean rate of change over blocks and pairs"),
    "plasticity_ci_low": Column("number", "Plasticity from", "lower end of the interval of plasticity, over images"),
    "plasticity_ci_high": Column("number", "Plasticity to", "upper end of the interval of plasticity, over images"),
    "n_seeds": Column("whole", "Seeds", "seeds that finished at the chosen learning rate"),
    "val_accuracy_mean": Column("share", "Val. accuracy", "mean over seeds at the chosen learning rate"),
    "test_accuracy_mean": Column("share", "Test accuracy", "mean over seeds at the chosen learning rate"),
    "test_accuracy_std": Column("points", "Test sd", "standard deviation of test accuracy over seeds"),
    "probe_accuracy": Column("share", "Linear probe", "test accuracy of a linear probe on the frozen features"),
    "relative_gain": Column("points", "Relative gain", "(test accuracy − linear probe) / linear probe"),
    "lr_spread": Column("points", "Spread over rates", "largest minus smallest test accuracy over learning rates"),
    "n_runs": Column("whole", "Runs", "runs trained, over seeds and learning rates"),
    "n_diverged": Column("whole", "Diverged", "runs that diverged; in regret, datasets on which the chosen one did"),
    "trained_fraction": Column("share", "Parameters trained", "values that train / values in the model"),
    "gain_over_head": Column(
        "points", "Above head", "this test accuracy minus that of `head`, whose cells have the same readout"
    ),
    "gap_to_full": Column("points", "Below full", "test accuracy of full fine-tuning minus this one's"),
    "shifted_accuracy_mean": Column(
        "share", "Shifted tests", "mean accuracy on shifted test sets, of the runs at the learning rate reported"
    ),
    "step_duration_s": Column("seconds", "Step (s)", "seconds per optimiser step, without evaluations"),
    "on_front": Column("truth", "On the front", "whether none trains fewer values for as much test accuracy"),
    "n_datasets": Column("whole", "Datasets", "datasets that count"),
    "plasticity_mean": Column("number", "Plasticity", "mean plasticity over datasets"),
    "relative_gain_mean": Column("points", "Relative gain", "mean relative gain over datasets"),
    "rank_mean": Column("number", "Mean rank", "mean rank by test accuracy over datasets; 1 is the best"),
    "predictor": Column("text", "Predictor", "what was known before fine-tuning; see the README"),
    "predictor_a": Column("text", "Predictor A", "the first of two predictors"),
    "predictor_b": Column("text", "Predictor B", "the second of two predictors"),
    "value": Column("number", "Value", "the predictor's value"),
    "n": Column("whole", "n", "observations behind the number"),
    "n_blocks": Column("whole", "Blocks of points", "(model, dataset) pairs inside which points are compared"),
    "rule": Column("text", "Rule", "how the component is chosen: a predictor, validation, random, or always one"),
    "scope": Column("text", "Scope", "what is pooled: one dataset, a model's datasets, or all"),
    "statistic": Column("text", "Statistic", "pearson, spearman, kendall, or spearman_given_parameters (partial)"),
    "estimate": Column("number", "Estimate", "the coefficient"),
    "estimate_a": Column("number", "Estimate A", "coefficient of the first predictor with accuracy"),
    "estimate_b": Column("number", "Estimate B", "coefficient of the second predictor with accuracy"),
    "difference": Column("number", "Difference", "estimate_a − estimate_b"),
    "p_value": Column("number", "p", "two-sided, of permutations within datasets"),
    "regret": Column("points", "Regret", "test accuracy lost against the best single component; a mean where pooled"),
    "regret_max": Column("points", "Largest regret", "largest regret over the datasets pooled"),
    "component_a": Column("text", "Component A", "the first of two components"),
    "component_b": Column("text", "Component B", "the second of two components"),
    "mean_difference": Column("points", "A − B", "mean over datasets of A's outcome minus B's"),
    "t_statistic": Column("number", "t", "Student's t, paired by dataset"),
    "t_p_value": Column("number", "p of t", "two-sided p-value of t"),
    "t_p_value_holm": Column("number", "p of t (Holm)", "adjusted over the pairs of one model and outcome"),
    "wilcoxon_statistic": Column("number", "Wilcoxon", "Wilcoxon's signed-rank statistic, paired by dataset"),
    "wilcoxon_p_value": Column("number", "p of Wilcoxon", "its two-sided p-value"),
    "wilcoxon_p_value_holm": Column("number", "p of W. (Holm)", "adjusted over the pairs of one model and outcome"),
}
"""Name → Column."""

_KIND_WORDS = {
    "text": "text", "whole": "whole number", "truth": "true or false", "number": "number", "seconds": "seconds",
    "share": "share, 0 to 1", "points": "difference, −1 to 1",
}  # fmt: skip


def heading(name):
    """The head of a column where people read it, with its unit."""
    column = COLUMNS[name]
    return column.label + {"share": " (%)", "points": " (%)"}.get(column.kind, "")


def page(tables):
    """The page of documentation of all columns as Markdown. tables: table → its columns, in order."""
    rows = [
        f"| `{name}` | {_KIND_WORDS[c.kind]} | {c.meaning} | {', '.join(t for t in tables if name in tables[t])} |"
        for name, c in COLUMNS.items()
    ]
    lists = [f"- **{table}**: {', '.join(f'`{name}`' for name in names)}" for table, names in tables.items()]
    return "\n".join([
        "# Columns of all tables",
        "",
        "Written from `vit_plasticity/analysis/dictionary.py`; null stands for what does not exist, such as the",
        "accuracy of a diverged run. Pages and figures show shares in percent.",
        "",
        "| Column | Kind | Meaning | Tables |",
        "|---|---|---|---|",
        *rows,
        "",
        "## Tables",
        "",
        *lists,
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    from vit_plasticity.analysis import schemas

    Path(sys.argv[1]).write_text(page({name: schemas.columns(name) for name in schemas.COLUMNS}), encoding="utf-8")
