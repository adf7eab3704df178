"""Elasticity: the relative change of a component's output per relative change of its input, in situ.

(‖f(x) − f(y)‖ / ‖f(x)‖) / (‖x − y‖ / ‖x‖), x of the source image. Free of the scale of inputs, weights and outputs, and
so comparable across families of models.
"""

from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.task import with_intervals


@predictor
def elasticity(task):
    """Mean elasticity of every block over pairs, and the mean over blocks; intervals resample images."""
    return with_intervals(task, lambda component: task.changes[component].elasticities)
