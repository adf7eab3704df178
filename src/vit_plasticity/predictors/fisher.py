"""The trace of the empirical Fisher information: the mean over training images of ‖∇_θ log p(y | x)‖², y the label.

With a fitted head (see `fitted_head`). It grows with the number of parameters; see `fisher_per_parameter`.
"""

from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.task import by_parameters


@predictor
def fisher(task):
    """The trace over all parameters of a component, and over those of every block."""
    found = task.gradients
    return by_parameters(
        task, lambda names: sum(found[n].square_of_images for n in names), n=sum(map(len, task.batches))
    )
