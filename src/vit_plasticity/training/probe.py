"""Linear probe: multinomial logistic regression on the frozen features of a pretrained model.

Dimensions: n images, D embedding width.
"""

import sys
import time
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from vit_plasticity import vit
from vit_plasticity.data import batches
from vit_plasticity.runtime.cli import InputError

FIT_ON = {"train": ("train",), "train_and_val": ("train", "val")}
"""What the setting `fit_on` may be → the splits that the probe is fitted on."""
CROP_SCALE = (0.08, 1.0)
"""Least and most share of an image's area that a random crop keeps, where `augment` asks for crops."""


def probe(model, dataset, settings):
    """The probe of a model on a dataset: one row, as a dict, with accuracy in [0, 1] on the test split.

    Raises InputError for features that are not finite.
    """
    started = time.perf_counter()
    read = _read_crops if settings.augment else _read
    x, y = zip(*(read(model, dataset, name, settings) for name in FIT_ON[settings.fit_on]), strict=True)
    x, y = np.concatenate(x), np.concatenate(y)
    row = fit(x, y, *_read(model, dataset, "test", settings), settings.max_iter)
    if not row["converged"]:
        print(f"the solver did not converge in max_iter {settings.max_iter} iterations; raise it", file=sys.stderr)
    sizes = {"n_train": len(y), "n_test": len(dataset.split("test").labels), "n_features": x.shape[1]}
    return row | sizes | {"duration_s": time.perf_counter() - started}


def fit(train, train_labels, test, test_labels, max_iter):
    """Logistic regression fitted on train features (n, D) with labels (n,) and scored on test features: a dict of
    accuracy (in [0, 1]), converged, and n_iter, the iterations of the solver."""
    classifier, found = classify(train, train_labels, max_iter)
    return {"accuracy": float(classifier.score(test, test_labels))} | found


def classify(train, train_labels, max_iter):
    """The fitted classifier of features, and a dict of converged and n_iter.

    Features are scaled to unit length, then standardised with the moments of the train features.
    """
    regression = LogisticRegression(max_iter=max_iter)
    classifier = make_pipeline(Normalizer(), StandardScaler(), regression)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(train, train_labels)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return classifier, {"converged": converged, "n_iter": int(regression.n_iter_.max())}


@torch.inference_mode()
def frozen_features(model, split, pool, batch_size):
    """Features of all images of a split, in its order: float32 array (n, D)."""
    preprocessing, device = vit.preprocessing(model), next(model.parameters()).device
    found = batches.evaluation(split.images, preprocessing, batch_size=batch_size, device=device)
    return torch.cat([vit.features(model, images, pool).float().cpu() for images in found]).numpy()


def _read(model, dataset, name, settings):
    """Features (n, D) and labels (n,) of a split."""
    split = dataset.split(name)
    features = frozen_features(model, split, settings.pool, settings.batch_size)
    return _finite(features, name, dataset), np.asarray(split.labels)


@torch.inference_mode()
def _read_crops(model, dataset, name, settings):
    """Features and labels of random crops and flips of a split: one of each image, without the last part of a batch."""
    split, device = dataset.split(name), next(model.parameters()).device
    size = min(settings.batch_size, len(split))
    batch_of = batches.TrainingBatches(
        split, f"{dataset.fingerprint} probe {name}".encode(), vit.preprocessing(model), batch_size=size,
        crop_scale=CROP_SCALE, flip=True, device=device,
    )  # fmt: skip
    found = [batch_of(step) for step in range(len(split) // size)]
    features = torch.cat([vit.features(model, images, settings.pool).float().cpu() for images, _ in found]).numpy()
    return _finite(features, name, dataset), torch.cat([labels for _, labels in found]).cpu().numpy()


def _finite(features, name, dataset):
    """The features (n, D), or InputError where not all of them are numbers."""
    if broken := int((~np.isfinite(features)).any(axis=1).sum()):
        raise InputError(
            f"{broken} of {len(features)} {name} images of {dataset.name} have features that are not finite; "
            "the weights of the model are damaged or overflow: fetch the model again, or choose another one"
        )
    return features
