"""The trace of the empirical Fisher information (see `fisher`), divided by the number of parameters."""

from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.task import by_parameters


@predictor
def fisher_per_parameter(task):
    """The mean over all parameters of a component, and over those of every block."""
    found = task.gradients

    def mean(names):
        return sum(found[n].square_of_images for n in names) / sum(found[n].mean.numel() for n in names)

    return by_parameters(task, mean, n=sum(map(len, task.batches)))
