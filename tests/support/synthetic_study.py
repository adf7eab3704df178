"""A made-up study on disk: the files that the stages write, of any size, with numbers that look like measurements.

The numbers come from a fixed seed. Nothing is trained; what is plausible about them (attention moves most, LayerNorms
least; a high plasticity helps a little; large learning rates diverge when asked to) is put in by hand.
"""

import itertools
import math
import zlib
from pathlib import Path

import numpy as np

from vit_plasticity.analysis import tables
from vit_plasticity.vit.components import MEASURABLE, measurable, parse

PLASTICITY = {"ln1": 0.35, "mha": 2.4, "ln2": 0.6, "fc1": 1.6, "fc2": 1.1}
PARAMETERS = {"ln1": 1536, "mha": 263_000, "ln2": 1536, "fc1": 264_000, "fc2": 262_000, "embed": 22_000}
_OF_WHOLES = {"norm": ("ln1", "ln2"), "ffn": ("fc1", "fc2"), "head": ()}
DEMO = {
    "models": ["vit_mini"],
    "datasets": ["digits", "digits_c_gaussian_noise_5", "digits_c_gaussian_blur_5", "digits_c_contrast_5"],
    "components": ["mha", "fc1", "fc2", "ln2", "ln1", "full"],
    "seeds": [0, 1],
}
"""The shape of the default study."""


def rng_of(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def write_study(
    folder,
    *,
    models,
    datasets,
    components,
    seeds,
    lrs=(1e-3, 1e-2, 3e-2),
    steps=100,
    every=20,
    blocks=4,
    pairs=64,
    plasticity_models=None,
    predictors=(),
    evaluate_on=None,
    diverges=lambda **key: False,
    study="synthetic",
):
    """Write a whole study under `folder` and return the folder.

    diverges: called with model, dataset, component, seed, lr; True makes that run diverge half-way.
    predictors: names of those that the stage measure would have written. evaluate_on: dataset → datasets that its cells
    are evaluated on.
    """
    about = {"study": study, "rev": 1}
    measured = measurable(components)

    def write(path, stage, rows, **key):
        tables.write(Path(folder, f"{path}.parquet"), rows, stage=stage, key=key, **about)

    for model, component in itertools.product(plasticity_models or models, measured):
        for dataset in datasets:
            key = {"model": model, "dataset": dataset, "component": component}
            write(f"plasticity/{model}/{dataset}/{component}", "plasticity", rates(blocks, pairs, **key), **key)
    for predictor, model, dataset in itertools.product(predictors, plasticity_models or models, datasets):
        found = [row for component in components for row in predicted(predictor, model, dataset, component, blocks)]
        write(f"predictors/{predictor}/{model}/{dataset}", "measure", found, model=model, dataset=dataset)
    for model, dataset in itertools.product(models, datasets):
        sizes = {"converged": True, "n_iter": 40, "n_train": 1400, "n_test": 360, "n_features": 64, "duration_s": 0.4}
        sizes |= {"image_size": 32, "stored_side": 8.0}
        rows = [{"accuracy": base(dataset) - 0.15} | sizes]
        write(f"probe/{model}/{dataset}", "probe", rows, model=model, dataset=dataset)
    for model, dataset, component, seed in itertools.product(models, datasets, components, seeds):
        key = {"model": model, "dataset": dataset, "component": component, "seed": seed}
        cell = f"{model}/{dataset}/{component}/seed={seed}"
        runs, history = train(key, lrs, steps, every, diverges)
        write(f"finetune/{cell}/runs", "finetune", runs, **key)
        write(f"finetune/{cell}/history", "history", history, **key)
        if on := (evaluate_on or {}).get(dataset):
            chosen = next((run for run in runs if run["chosen"]), None)
            found = {"lr": chosen and chosen["lr"], "accuracy": chosen and chosen["test_accuracy"] - 0.2, "n_test": 360}
            write(f"shifted/{cell}", "evaluate", [{"evaluated_on": name} | found for name in on], **key)
    return Path(folder)


def base(dataset):
    """How easy a dataset is: the accuracy around which its components lie, 0.6 to 0.95."""
    return 0.6 + 0.35 * rng_of("base", dataset).random()


def rates(blocks, pairs, model, dataset, component):
    """Rates of change, one row per block and pair."""
    rng = rng_of(model, dataset, component)
    depth = 1 + (0.6 if component == "mha" else 0.2) * np.sin(np.linspace(0, 3, blocks))
    level = PLASTICITY[component] * (0.9 + 0.2 * rng_of("level", dataset).random())
    values = (
        level
        * depth[:, None]
        * np.exp(0.2 * rng.standard_normal(pairs))[None]
        * np.exp(0.05 * rng.standard_normal((blocks, pairs)))
    )
    block, pair = np.indices(values.shape)
    images = {"source_image": pair.ravel(), "target_image": pair.ravel()}
    return {"block": block.ravel(), "pair": pair.ravel(), **images, "rate": values.ravel()}


def predicted(predictor, model, dataset, component, blocks):
    """Rows of the stage measure: the component as a whole, and where it has blocks each of them."""
    rng = rng_of(predictor, model, dataset, component)
    level = math.log10(PARAMETERS.get(component, 8e5)) if predictor == "parameters" else rng.random()
    values = {None: level}
    if predictor == "bound":
        if component not in MEASURABLE:
            return []
        known = PLASTICITY[component] * (40 if component == "mha" else 3) * (1 + 0.3 * np.arange(blocks) / blocks)
        values = {None: known.mean()} | dict(enumerate(known))
    elif component in MEASURABLE and predictor != "parameters":
        values |= dict(enumerate(level * (0.5 + rng.random(blocks))))
    return [
        {
            "component": component, "predictor": predictor, "block": block, "value": value, "ci_low": None,
            "ci_high": None, "n": 64, "duration_s": 0.25,
        }
        for block, value in values.items()
    ]  # fmt: skip


def train(key, lrs, steps, every, diverges):
    """Runs (a list of rows) and history (a dict of columns) of one cell, without the key."""
    rng = rng_of(*key.values())
    ids = [part for id, _ in parse(key["component"]).terms for part in _OF_WHOLES.get(id, (id,))]
    full = ids == ["full"]
    total = sum(PARAMETERS.values())
    trained = total if full else sum(PARAMETERS[i] for i in ids) + 700
    gain = 0.05 if full else max((0.02 * math.log1p(PLASTICITY.get(i, 0.2)) for i in ids), default=0)
    runs, history = [], []
    for position, lr in enumerate(lrs):
        diverged = diverges(lr=lr, **key)
        fit = base(key["dataset"]) + gain - 0.03 * abs(position - len(lrs) / 2) + 0.006 * rng.standard_normal()
        n = steps // 2 if diverged else steps
        t = np.arange(1, n + 1)
        loss = 0.3 + 2 * np.exp(-t / steps * 4 * (1 + gain * 10)) + 0.1 * rng.standard_normal(n)
        norm = (1 + gain * 10) * np.exp(-t / steps) * np.exp(0.2 * rng.standard_normal(n))
        if diverged:
            loss, norm = loss * 4.0 ** np.maximum(0, t - n + 6), norm * 10.0 ** np.maximum(0, t - n + 6)
            loss[-1], norm[-1] = math.nan, math.inf
        evaluated = (t % every == 0) & np.isfinite(loss)
        accuracy = fit * (1 - 0.8 * np.exp(-t / steps * 5)) + 0.005 * rng.standard_normal(n)
        val = float(accuracy[evaluated].max()) if evaluated.any() else math.nan
        for i in range(n):
            step_lr = lr * (0.5 + 0.5 * math.cos(math.pi * i / steps))
            on = bool(evaluated[i])
            history.append(
                (lr, i + 1, loss[i], norm[i], 0.8 * norm[i], step_lr)
                + ((loss[i] + 0.05, accuracy[i]) if on else (None, None))
            )
        runs.append({
            "lr": lr, "outcome": "diverged" if diverged else "finished", "steps": steps, "steps_trained": n,
            "best_step": None if diverged else steps, "val_accuracy": None if diverged else val,
            "test_accuracy": None if diverged else val - 0.01 + 0.003 * rng.standard_normal(), "chosen": False,
            "test_balanced_accuracy": None if diverged else val - 0.02, "largest_class_share": 0.11,
            "best_step_before_divergence": int(t[evaluated][-1]) if diverged and evaluated.any() else None,
            "val_accuracy_before_divergence": val if diverged and evaluated.any() else None,
            "n_parameters": total, "n_trained": trained, "n_train": 1150, "n_val": 287, "n_test": 360, "batch_size": 64,
            "duration_s": 2.0, "step_duration_s": 0.02, "peak_memory_mb": 300.0, "git_commit": None, "device": "cpu",
        })  # fmt: skip
    finished = [run for run in runs if run["val_accuracy"] is not None]
    if finished:
        max(finished, key=lambda run: run["val_accuracy"])["chosen"] = True
    names = ("lr", "step", "loss", "gradient_norm", "component_gradient_norm", "step_lr", "val_loss", "val_accuracy")
    columns = dict(zip(names, map(list, zip(*history, strict=True)), strict=True))
    return runs, columns
