"""A short run: validation accuracy after a small share of a cell's steps, at the best of its learning rates.

Every run is a cell's in small: its head, the cell's own batches, its warm-up and decay shrunk with the steps. It is
fine-tuning, and by far the most expensive predictor.
"""

import copy

import torch

from vit_plasticity import vit
from vit_plasticity.data.batches import TrainingBatches
from vit_plasticity.predictors import predictor
from vit_plasticity.training import cell
from vit_plasticity.training import step as training


@predictor(trains=True)
def short_run(task):
    """Validation accuracy in [0, 1], the best over learning rates; null where every run diverged."""
    settings, split = task.finetune, task.dataset.split("train")
    n_steps = max(1, round(task.settings.short_share * settings.steps))
    device = next(task.model.parameters()).device
    batch_of = TrainingBatches(
        split, f"{task.dataset.fingerprint} {task.settings.seed}".encode(), vit.preprocessing(task.model),
        batch_size=settings.batch_size, crop_scale=settings.crop_scale, flip=settings.flip, device=device,
    )  # fmt: skip
    for component in task.components:
        accuracies = [accuracy_of(task, component, lr, n_steps, batch_of) for lr in settings.lrs]
        value = max((a for a in accuracies if a is not None), default=None)
        yield {"component": component.name, "block": None, "value": value, "n": n_steps}


def accuracy_of(task, component, lr, n_steps, batch_of):
    """Validation accuracy after `n_steps` steps at a peak learning rate; None where the loss is not finite."""
    settings, model = task.finetune, copy.deepcopy(task.model)
    vit.new_head(model, len(task.dataset.classes), cell.head_seed(settings, task.settings.seed))
    vit.train_only(model, component.name)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = training.make_optimizer(
        trained, settings.optimizer, lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    warmup = round(task.settings.short_share * settings.warmup_steps)
    losses = []
    for index in range(n_steps):
        step_lr = training.learning_rate(index, n_steps, warmup, lr, settings.warmup_from)
        loss, _ = training.step(
            model, optimizer, *batch_of(index), lr=step_lr, clip_norm=settings.clip_norm,
            accumulation=settings.accumulation, precision=settings.precision, recompute=settings.recompute,
        )  # fmt: skip
        losses.append(loss)
    val, preprocessing = task.dataset.split("val"), vit.preprocessing(model)
    if not torch.stack(losses).isfinite().all():
        return None
    return training.evaluate(model, val.images, val.labels, preprocessing, precision=settings.precision)[1]
