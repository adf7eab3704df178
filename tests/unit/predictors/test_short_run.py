"""A short run is a cell's run in small: the same step, on the same batches, at every learning rate."""

import copy

import torch
from predictor_tasks import task_of

from vit_plasticity import vit
from vit_plasticity.data.batches import TrainingBatches
from vit_plasticity.predictors import known, load
from vit_plasticity.study.config import settings
from vit_plasticity.training import step as training

FINETUNE = (
    '{"lrs": [30.0, 0.01], "steps": 40, "evaluation_period": 40, "batch_size": 8, "warmup_steps": 10, "flip": false}'
)


def test_it_trains_and_so_is_measured_only_when_named():
    assert [name for name, trains in known().items() if trains] == ["short_run"]


def test_best_validation_accuracy_after_a_share_of_the_steps(model, dataset):
    finetune = settings("finetune", FINETUNE)
    task = task_of(model, dataset, "fc1", "ln1", finetune=finetune, short_share=0.25, seed=7)
    before = copy.deepcopy(model.state_dict())
    found = {row["component"]: row for row in load("short_run")(task)}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    accuracies = []
    for lr in finetune.lrs:
        own = copy.deepcopy(model)
        vit.new_head(own, 3)
        vit.train_only(own, "fc1")
        preprocessing = vit.preprocessing(own)
        batch_of = TrainingBatches(
            dataset.split("train"), f"{dataset.fingerprint} 7".encode(), preprocessing, batch_size=8,
            crop_scale=finetune.crop_scale, flip=False,
        )  # fmt: skip
        optimizer = training.make_optimizer([p for p in own.parameters() if p.requires_grad], "sgd", lr)
        for step in range(10):
            rate = training.learning_rate(step, 10, 2, lr)
            training.step(own, optimizer, *batch_of(step), lr=rate, clip_norm=1.0)
        val = dataset.split("val")
        accuracies.append(training.evaluate(own, val.images, val.labels, preprocessing)[1])
    assert found["fc1"]["value"] == max(accuracies)
    assert accuracies[0] != accuracies[1]
    assert found["fc1"]["n"] == 10


def test_null_where_every_run_diverges(model, dataset):
    finetune = settings("finetune", FINETUNE.replace("[30.0, 0.01]", "[0.1]"))
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight[0, 0] = float("inf")
    task = task_of(model, dataset, "fc1", finetune=finetune)
    assert [row["value"] for row in load("short_run")(task)] == [None]
