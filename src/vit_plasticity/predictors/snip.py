"""Connection sensitivity Σ|g θ|, by which SNIP prunes (Lee, Ajanthan and Torr 2019, arXiv 1810.02340).

The gradient g is that of the mean loss over training images, with a fitted head (see `fitted_head`).
"""

from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.task import by_parameters


@predictor
def snip(task):
    """The sum over all parameters of a component, and over those of every block."""
    found = task.gradients
    return by_parameters(task, lambda names: sum(found[n].saliency for n in names), n=sum(map(len, task.batches)))
