"""The head that gradients are taken with: below the zero head that fine-tuning starts from, every gradient is zero.

Multinomial logistic regression (C = 1) on what the model's head reads, of the training split, standardised; then folded
into a weight and a bias for what the head reads. Dimensions: n images, D features, K classes.
"""

import sys
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from vit_plasticity import vit
from vit_plasticity.data import batches
from vit_plasticity.runtime.cli import InputError

BATCH, MAX_ITER = 64, 5000


def fitted_head(model, dataset):
    """Weight (K, D) and bias (K,), float32 on the model's device, fitted on the training split of a Dataset."""
    split = dataset.split("train")
    features = _features(model, split, np.arange(len(split))).double().cpu().numpy()
    if not np.isfinite(features).all():
        raise InputError(f"training images of {dataset.name} have features that are not finite; fetch the model again")
    weight, bias = fit(features, np.asarray(split.labels), len(dataset.classes))
    device = next(model.parameters()).device
    return tuple(torch.tensor(values, dtype=torch.float32, device=device) for values in (weight, bias))


def fit(features, labels, n_classes):
    """Weight (K, D) and bias (K,) of the regression on features (n, D) with labels (n,), for features as they are.

    Raises ValueError for a class without an image.
    """
    if absent := sorted({*range(n_classes)} - {*labels.tolist()}):
        raise ValueError(f"class {absent[0]} has no training image; every class needs one to fit a head")
    scaler, regression = StandardScaler(), LogisticRegression(C=1.0, max_iter=MAX_ITER)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        regression.fit(scaler.fit_transform(features), labels)
    if any(issubclass(one.category, ConvergenceWarning) for one in caught):
        print(f"the fitted head did not converge in {MAX_ITER} iterations", file=sys.stderr)
    coefficients, intercept = regression.coef_, regression.intercept_
    if n_classes == 2:  # one row, of the second class against the first
        coefficients, intercept = (np.concatenate([-values / 2, values / 2]) for values in (coefficients, intercept))
    weight = coefficients / scaler.scale_
    return weight, intercept - weight @ scaler.mean_


@torch.inference_mode()
def held_out_loss(model, head, split, indices):
    """Mean cross-entropy, in nats, of some images of a split with a fitted head."""
    logits = functional.linear(_features(model, split, indices), *head)
    labels = torch.tensor(np.asarray(split.labels)[indices], device=logits.device)
    return functional.cross_entropy(logits.double(), labels).item()


@torch.inference_mode()
def _features(model, split, indices):
    """What the head reads of some images: (n, D)."""
    device, family = next(model.parameters()).device, vit.family(model)
    found = batches.evaluation(split.images, vit.preprocessing(model), batch_size=BATCH, device=device, indices=indices)
    return torch.cat([family.pre_logits(model, images).float() for images in found])
