"""Everything that can be known of the choices without training them: predictors, and a linear probe to compare with."""

from types import CodeType, SimpleNamespace

import numpy as np

from vit_plasticity import predictors, vit
from vit_plasticity.analysis.judgement import NULL
from vit_plasticity.predictors import plasticity
from vit_plasticity.predictors.task import Task
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study.config import settings
from vit_plasticity.training import probe

SETTINGS = {
    "pairs": 64, "images": 64, "seed": 0, "local_images": 16, "probes": 2, "batches": 3, "batch_size": 32,
}  # fmt: skip
"""Few images: enough to order components, in a minute."""
PASSES = {"changes", "gradients"}
"""The parts of a Task that take time: passes over images, which the predictors that read them share."""


class Measurement:
    """What is measured of a model on a dataset.

    values: {predictor: {component: value}}; probe: a dict, or None before it is fitted; failed: {predictor: sentence}.

    model: with the head of its classes. dataset: sampled (see `sample`). source: a Split of pre-training images, or
    None: the training images take their place. choices: see `choices.Choice`, in the order of `parsed`, their
    Components.
    """

    def __init__(self, model, dataset, source, choices, parsed):
        self.model, self.dataset, self.choices, self.parsed = model, dataset, choices, parsed
        self.source = dataset.split("train") if source is None else source
        self.task = Task(model, parsed, self.source, dataset, SimpleNamespace(**SETTINGS))
        self.values, self.probe, self.failed = {}, None, {}

    def steps(self):
        """A list of (what is done, its rough work in images through the model, function), what is cheap first."""
        n_images, pairs = sum(len(split) for split in self.dataset.splits.values()), SETTINGS["pairs"]
        n_gradients = SETTINGS["batches"] * SETTINGS["batch_size"]
        work = {NULL: 0, "plasticity": 2 * pairs, "bound": 0, "bound_holding": 0}  # of weights, hardly of images
        work |= {"one_step_gain": 5 * n_gradients * len(self.choices)}
        steps = [(name, work.get(name, 4 * pairs), lambda n=name: self._predictor(n)) for name in self.names]
        steps += [("linear probe", n_images, self._probe), ("plasticity", work["plasticity"], self._plasticity)]
        return sorted(steps, key=lambda step: step[1])

    @property
    def names(self):
        """The predictors that are rows of the stage `measure`, and need no training."""
        return [name for name, trains in predictors.known().items() if not trains and name != "plasticity"]

    def is_free(self, name):
        """Whether the predictor reads passes that were made already, and no other."""
        passes = _names(predictors.load(name).__code__) & PASSES if name in self.names else set()
        return bool(passes) and passes <= self.task.parts.keys()

    def _predictor(self, name):
        try:
            rows = self.task.rows(predictors.load(name), name)
        except (InputError, ValueError) as error:
            self.failed[name] = str(error)
            return
        found = {row["component"]: row["value"] for row in rows if row["block"] is None and row["value"] is not None}
        self.values[name] = {component: float(value) for component, value in found.items()}

    def _plasticity(self):
        params = SimpleNamespace(pairs=SETTINGS["pairs"], seed=SETTINGS["seed"], relative_width=0.0)
        target, found = self.dataset.split("test"), {}
        try:
            for base in dict.fromkeys(one.base.name for one in self.parsed if one.base):
                found[base] = plasticity.measure(self.model, self.source, [(target, False)], base, params)[0].rates
        except ValueError as error:
            self.failed["plasticity"] = str(error)
            return
        n_blocks = len(vit.family(self.model).blocks(self.model))
        self.values["plasticity"] = {
            one.name: float(found[one.base.name][one.blocks(n_blocks)].mean()) for one in self.parsed if one.base
        }

    def _probe(self):
        given = settings("probe")
        splits = [self.dataset.split(name) for name in ("train", "val", "test")]
        features = [probe.frozen_features(self.model, one, given.pool, given.batch_size) for one in splits]
        if not all(np.isfinite(one).all() for one in features):
            raise InputError(
                "the model gives features that are not finite for some images: its weights are damaged or overflow; "
                "give another model"
            )
        classifier, found = probe.classify(features[0], np.asarray(splits[0].labels), given.max_iter)
        wrong = [
            np.flatnonzero(classifier.predict(x) != split.labels).tolist()
            for x, split in zip(features[1:], splits[1:], strict=True)
        ]
        accuracies = [1 - len(w) / len(split) for w, split in zip(wrong, splits[1:], strict=True)]
        self.probe = {"val_accuracy": accuracies[0], "test_accuracy": accuracies[1], "test_wrong": wrong[1], **found}
        self.probe |= {f"n_{name}": len(split) for name, split in zip(("train", "val", "test"), splits, strict=True)}


def _names(code):
    """The attributes and globals that a function's code reads, in the functions within it too."""
    return set(code.co_names).union(*(_names(one) for one in code.co_consts if isinstance(one, CodeType)))
