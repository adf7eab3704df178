"""Plasticity on the inputs that a component really receives, between the same source and target images."""

from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.task import with_intervals


@predictor
def plasticity_in_situ(task):
    """Mean rate of change in situ of every block over pairs, and the mean over blocks; intervals resample images."""
    return with_intervals(task, lambda component: task.changes[component].rates)
