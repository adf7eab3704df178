"""The number of parameters: the null, which knows nothing of the weights. Whatever does not beat it says nothing."""

import copy
import math

from vit_plasticity import vit
from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.task import names_by_block


@predictor
def parameters(task):
    """log10 of how many values a component trains, without head and final norm; of every block, and of all."""
    for component in task.components:
        model = task.model
        if component.rank is not None:  # its adapters are in no model but one that trains them
            model = copy.deepcopy(model)
            vit.train_only(model, component.name)
        own = component.parameters(model)
        by_block = names_by_block(model, component)
        counts = {
            block: component.size or sum(own[name].numel() for name in names) for block, names in by_block.items()
        }
        for block, n in (counts | {None: sum(counts.values())}).items():
            yield {"component": component.name, "block": block, "value": math.log10(n) if n else None}
