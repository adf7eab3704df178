"""Intervals of a mean over pairs of images in which images repeat: an image in many pairs is one observation.

Dimensions: n series (blocks, say), P pairs, G images of a side.
"""

import numpy as np


def image_interval(values, source_image, target_image, confidence, *, same_images=False):
    """Mean over pairs, with its interval under two-way clustering by image: (mean, low, high).

    values: (P,) or (n, P); source_image, target_image: (P,) ints, the image on each side of a pair. same_images: one
    sample stands on both sides, and a number means the same image on either. confidence: in (0, 1).
    The variance is V_source + V_target - V_pair, from sums of residuals by image and by pair; where that is not
    positive, the larger of the first two. Student's quantile has the smaller number of images - 1 degrees of freedom.
    Each returned value has the shape of values without P; the bounds are NaN where a side has too few images.
    Sources: Cameron, Gelbach and Miller 2011, doi 10.1198/jbes.2010.07136; for one sample on both sides, Aronow, Samii
    and Assenova 2015, doi 10.1093/pan/mpv018.
    """
    from scipy.special import stdtrit  # where no interval is wanted, nothing waits for this import

    values = np.asarray(values, dtype=float)
    n_pairs = values.shape[-1]
    mean = values.mean(axis=-1)
    residuals = np.atleast_2d(values - mean[..., None])  # (n, P)
    if same_images:
        variance, n_images = _of_one_sample(residuals, np.asarray(source_image), np.asarray(target_image))
    else:
        variance, n_images = _of_two_samples(residuals, np.asarray(source_image), np.asarray(target_image))
    quantile = stdtrit(max(n_images - 1, 0), 0.5 + confidence / 2)  # NaN without a degree of freedom
    half = (quantile * np.sqrt(variance) / n_pairs).reshape(mean.shape)
    return mean, mean - half, mean + half


def _of_two_samples(residuals, source, target):
    """Variance of the sum over pairs (n,), and the smaller number of images."""
    (source, n_source), (target, n_target) = _numbered(source), _numbered(target)
    if min(n_source, n_target) < 2:
        return np.full(len(residuals), np.nan), 0
    by_source = _squares(residuals, source) * n_source / (n_source - 1)
    by_target = _squares(residuals, target) * n_target / (n_target - 1)
    pair, n_pairs = _numbered(source * n_target + target)
    both = by_source + by_target - _squares(residuals, pair) * n_pairs / (n_pairs - 1)
    return np.where(both > 0, both, np.maximum(by_source, by_target)), min(n_source, n_target)


def _of_one_sample(residuals, source, target):
    """As `_of_two_samples`: pairs that share an image on any side are dependent. The factor is the jackknife's."""
    images, n_images = _numbered(np.concatenate([source, target]))
    if n_images < 3:
        return np.full(len(residuals), np.nan), 0
    source, target = np.split(images, 2)
    by_image = _sums(residuals, source, n_images) + _sums(residuals, target, n_images)
    factor = n_images * (n_images - 1) / (n_images - 2) ** 2
    pair, _ = _numbered(np.minimum(source, target) * n_images + np.maximum(source, target))
    both = np.square(by_image).sum(axis=1) * factor - _squares(residuals, pair)
    larger = np.maximum(_squares(residuals, source), _squares(residuals, target)) * n_images / (n_images - 1)
    return np.where(both > 0, both, larger), n_images


def _numbered(clusters):
    """Clusters (P,) numbered from 0 without gaps, and how many there are."""
    names, numbers = np.unique(clusters, return_inverse=True)
    return numbers, len(names)


def _sums(residuals, clusters, n_clusters):
    """Sums of residuals within clusters: (n, P), (P,) → (n, n_clusters)."""
    return np.stack([np.bincount(clusters, weights=row, minlength=n_clusters) for row in residuals])


def _squares(residuals, clusters):
    """Σ over clusters of the squared sum of residuals within: (n, P), (P,) → (n,)."""
    return np.square(_sums(residuals, clusters, clusters.max() + 1)).sum(axis=1)
