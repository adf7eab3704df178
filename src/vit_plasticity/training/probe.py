"""Linear probes: multinomial logistic regression on frozen features of a model, at one of its taps or at each.

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

    Raises InputError for features that are not finite, and for a tap that the model does not have.
    """
    started = time.perf_counter()
    row = _probes(model, dataset, settings, _at_tap(model, settings))[None]
    sides = np.concatenate([dataset.split(name).images.shorter_sides() for name in FIT_ON[settings.fit_on]])
    row |= {"image_size": vit.preprocessing(model).size, "stored_side": float(np.median(sides))}
    return row | {"duration_s": time.perf_counter() - started}


def _at_tap(model, settings):
    """The function from images to {None: features (B, D)} of the tap that is asked for."""
    if settings.tap == "ffn":
        return lambda images: {None: vit.features(model, images, settings.pool)}
    branch, _, number = settings.tap.partition("@")
    n_blocks = len(vit.family(model).blocks(model))
    block = None if branch == "embed" else int(number) if number else n_blocks - 1
    if block is not None and block >= n_blocks:
        raise InputError(f"probe.tap: got {settings.tap!r}; the model's blocks are 0 to {n_blocks - 1}")
    return lambda images: {None: vit.features_by_tap(model, images, settings.pool)[branch, block]}


def probe_taps(model, dataset, settings):
    """A probe at each tap of a model (see `vit.features_by_tap`): rows, as dicts of tap, block and what `probe` gives.

    Holds the features of all taps. Raises InputError as `probe` does.
    """
    found = _probes(model, dataset, settings, lambda images: vit.features_by_tap(model, images, settings.pool))
    return [{"tap": tap, "block": block} | row for (tap, block), row in found.items()]


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


def _probes(model, dataset, settings, features):
    """A probe for each kind of features: its name → a row, as a dict. features: images → {name: (B, D)}."""
    read = _read_crops if settings.augment else _read
    fitted = [read(model, dataset, name, settings, features) for name in FIT_ON[settings.fit_on]]
    test, test_labels = _read(model, dataset, "test", settings, features)
    y, rows = np.concatenate([labels for _, labels in fitted]), {}
    for name in test:
        x = np.concatenate([found.pop(name) for found, _ in fitted])
        sizes = {"n_train": len(y), "n_test": len(test_labels), "n_features": x.shape[1]}
        rows[name] = fit(x, y, test[name], test_labels, settings.max_iter) | sizes
    if late := sum(not row["converged"] for row in rows.values()):
        which = f" of {late} of {len(rows)} probes" if len(rows) > 1 else ""
        print(
            f"the solver{which} did not converge in max_iter {settings.max_iter} iterations; raise it", file=sys.stderr
        )
    return rows


@torch.inference_mode()
def _read(model, dataset, name, settings, features):
    """Features, name → (n, D), and labels (n,) of a split."""
    split, device = dataset.split(name), next(model.parameters()).device
    preprocessing = vit.preprocessing(model)
    found = batches.evaluation(split.images, preprocessing, batch_size=settings.batch_size, device=device)
    return _joined(map(features, found), name, dataset), np.asarray(split.labels)


@torch.inference_mode()
def _read_crops(model, dataset, name, settings, features):
    """As `_read`, of random crops and flips of a split: one of each image, without the last part of a batch."""
    split, device = dataset.split(name), next(model.parameters()).device
    size = min(settings.batch_size, len(split))
    batch_of = batches.TrainingBatches(
        split, f"{dataset.fingerprint} probe {name}".encode(), vit.preprocessing(model), batch_size=size,
        crop_scale=CROP_SCALE, flip=True, device=device,
    )  # fmt: skip
    labels = []

    def crops():
        for step in range(len(split) // size):
            images, of = batch_of(step)
            labels.append(of.cpu())
            yield images

    return _joined(map(features, crops()), name, dataset), torch.cat(labels).numpy()


def _joined(parts, name, dataset):
    """Features of batches, {name: (B, D)} each, as arrays (n, D), or InputError where not all of them are numbers."""
    parts = [{tap: values.float().cpu() for tap, values in part.items()} for part in parts]
    joined = {tap: torch.cat([part[tap] for part in parts]).numpy() for tap in parts[0]}
    for features in joined.values():
        if broken := int((~np.isfinite(features)).any(axis=1).sum()):
            raise InputError(
                f"{broken} of {len(features)} {name} images of {dataset.name} have features that are not finite; "
                "the weights of the model are damaged or overflow: fetch the model again, or choose another one"
            )
    return joined
