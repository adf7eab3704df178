"""The number of parameters: the null, which knows nothing of the weights. Whatever does not beat it says nothing."""

import math

from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.task import by_parameters


@predictor
def parameters(task):
    """log10 of how many values a component trains, without head and final norm; of every block, and of all."""
    sizes = {name: values.numel() for name, values in task.model.named_parameters()}
    return by_parameters(task, lambda names: math.log10(sum(sizes[name] for name in names)), of_masked=math.log10)
