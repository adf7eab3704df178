"""Tasks for predictors, on the small model and the small dataset of the unit tests."""

from types import SimpleNamespace

from vit_plasticity.predictors.task import Task
from vit_plasticity.vit.components import parse

SETTINGS = {"pairs": 40, "images": 1000, "seed": 0, "local_images": 12, "probes": 4}
SETTINGS |= {"batches": 3, "batch_size": 10, "short_share": 0.2}


def task_of(model, dataset, *names, finetune=None, **settings):
    """A Task of these components, the training images as its source."""
    chosen = [parse(name) for name in names]
    return Task(
        model, chosen, dataset.split("train"), dataset, SimpleNamespace(**SETTINGS | settings), finetune=finetune
    )


def values(rows):
    """{(component, block): value}"""
    return {(row["component"], row["block"]): row["value"] for row in rows}
