"""Training a candidate for real: the steps, batches and evaluation of a fine-tuning cell, with as many steps as asked.

Dimensions: n images of a split that are evaluated.
"""

import json
import time

import numpy as np
import torch

from vit_plasticity import vit
from vit_plasticity.data import batches
from vit_plasticity.study.config import settings
from vit_plasticity.training import run as runs
from vit_plasticity.training import step as training

EVALUATIONS = 5
"""How often the validation images are evaluated in a run, at most."""


class Trial:
    """Called as trial(candidate, steps): one run, as `halving.Search` wants it.

    folder: of the model. dataset: its splits val and test are evaluated as they are given. What the run got wrong on
    them, as positions in these splits, is kept for comparisons; test images choose nothing.
    """

    def __init__(self, folder, dataset, *, batch_size, flip=True, seed=0, device="cpu", threads=1):
        self.folder, self.dataset, self.device = folder, dataset, device
        self.batch_size = min(batch_size, len(dataset.split("train")))
        self.preprocessing = vit.preprocessing(vit.load(folder))
        self.batch_of = batches.TrainingBatches(
            dataset.split("train"), f"{dataset.fingerprint} {seed}".encode(), self.preprocessing,
            batch_size=self.batch_size, crop_scale=self.settings(1, 1.0).crop_scale, flip=flip, device=device,
            threads=threads,
        )  # fmt: skip
        self.pixels = {name: batches.kept(dataset.split(name).images, self.preprocessing) for name in ("val", "test")}

    def settings(self, steps, lr):
        """The settings of one run."""
        given = {
            "lrs": [lr],
            "steps": steps,
            "batch_size": self.batch_size,
            "warmup_steps": steps // 10,
            "evaluation_period": max(1, -(-steps // EVALUATIONS)),
            "crop_scale": [0.5, 1.0],
        }
        return settings("finetune", json.dumps(given))

    def __call__(self, candidate, steps):
        started = time.perf_counter()
        params = self.settings(steps, candidate.lr)
        model = vit.load(self.folder)
        vit.new_head(model, len(self.dataset.classes))
        vit.prepare(model.to(self.device))
        vit.train_only(model, candidate.component)
        start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        run = runs.Run(model, start, params, candidate.lr)
        labels = torch.tensor(self.dataset.split("val").labels)

        def evaluate():
            return training.evaluate(model, self.pixels["val"], labels, self.preprocessing)

        silent = {"between_steps": lambda run: None, "report": lambda line: None}
        finite = runs.train(run, model, self.batch_of, evaluate, params, **silent)
        found = {"val_accuracy": None}
        if finite == steps:
            with torch.no_grad():
                for name, tensor in run.best.items():
                    run.trained[name].copy_(tensor)
            wrong = {name: self._wrong(model, name) for name in ("val", "test")}
            found = {"val_accuracy": 1 - len(wrong["val"]) / len(labels), "val_wrong": wrong["val"]}
            found |= {"test_wrong": wrong["test"]}
        return found | {"seconds": time.perf_counter() - started}

    @torch.inference_mode()
    def _wrong(self, model, name):
        """The positions of the images of a split whose class the model does not find."""
        found = batches.evaluation(self.pixels[name], self.preprocessing, device=self.device)
        answers = torch.cat([vit.logits(model, images).argmax(dim=1).cpu() for images in found])
        return np.flatnonzero(answers.numpy() != self.dataset.split(name).labels).tolist()
