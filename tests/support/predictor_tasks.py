"""Tasks for predictors, on the small model and the small dataset of the unit tests."""

from types import SimpleNamespace
from typing import NamedTuple

from vit_plasticity import vit
from vit_plasticity.predictors.task import Task
from vit_plasticity.vit.components import BLOCK_COMPONENTS

SETTINGS = {"pairs": 40, "images": 1000, "seed": 0, "local_images": 12, "probes": 4}
SETTINGS |= {"batches": 3, "batch_size": 10, "short_share": 0.2}


class Named(NamedTuple):
    """What predictors ask of a component: its name, the measurable one that it is blocks of or None, its blocks."""

    name: str

    @property
    def base(self):
        id = self.name.split("@")[0]
        return Named(id) if id in BLOCK_COMPONENTS else None

    def blocks(self, n_blocks):
        return [int(self.name.split("@")[1])] if "@" in self.name else range(n_blocks)

    def parameters(self, model):
        before = [p.requires_grad for p in model.parameters()]
        vit.train_only(model, self.name)
        always = {id(p) for module in vit.family(model).head(model) for p in module.parameters()}
        found = {n: p for n, p in model.named_parameters() if p.requires_grad and id(p) not in always}
        for parameter, wanted in zip(model.parameters(), before, strict=True):
            parameter.requires_grad_(wanted)
        return found


def task_of(model, dataset, *names, finetune=None, **settings):
    """A Task of these components, the training images as its source."""
    chosen = [Named(name) for name in names]
    return Task(
        model, chosen, dataset.split("train"), dataset, SimpleNamespace(**SETTINGS | settings), finetune=finetune
    )


def values(rows):
    """{(component, block): value}"""
    return {(row["component"], row["block"]): row["value"] for row in rows}
