"""The relative gradient norm ‖∇θ‖ / ‖θ‖, the criterion of surgical fine-tuning (Lee et al. 2023, arXiv 2210.11466).

The parameters of a component in one block are one vector: gain and bias of a LayerNorm are not taken apart, since a
bias near zero would be divided by. The gradient is that of a batch's mean loss, with a fitted head (see `fitted_head`).
"""

import numpy as np

from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.task import by_parameters


@predictor
def gradient_norm(task):
    """Mean over batches for every block, and the mean over blocks; null where all parameters of a block are zero."""
    found = task.gradients

    def relative(names):
        square = sum(found[name].square_of_values for name in names)
        norms = np.sqrt(sum(found[name].squares_of_batches for name in names))
        return float(norms.mean() / square**0.5) if square else None

    return by_parameters(task, relative, averaged=True, n=len(task.batches))
