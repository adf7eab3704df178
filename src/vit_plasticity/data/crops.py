"""Crops of images of one size as matrix products, many images at once, in place of resizing one by one.

The only file that knows this way. It is left out where the environment variable ``VIT_PLASTICITY_BATCHED_CROPS`` is 0.
Dimensions: B images, S the model's image size in pixels.
"""

import functools
import os

import numpy as np
import torch

SWITCH = "VIT_PLASTICITY_BATCHED_CROPS"
SMALL = 64
"""Up to this side, in pixels, of images of one size and of crops, matrix products beat resizing one by one on a CPU."""


def suits(images, size, device):
    """Whether crops of images (n, height, width, 3), resized to `size`, are to be made so: on a GPU, or if small."""
    small = max(size, *images.shape[1:3]) <= SMALL
    return os.environ.get(SWITCH) != "0" and (device.type != "cpu" or small)


def crop_uniform(pixels, boxes, flips, preprocessing):
    """Crop and resize images of one shape, each to its own box, as two matrix products an image.

    pixels: (B, height, width, 3) uint8; boxes: (B, 4) top, left, height, width; flips: (B,) bool.
    Returns (B, 3, S, S) float32 in [0, 255], as torch's antialiased interpolation of the same crops gives.
    """
    n, height, width, _ = pixels.shape
    boxes, mirrored = torch.as_tensor(boxes, device=pixels.device), np.flatnonzero(flips)
    rows = _resize_matrices(boxes[:, 0], boxes[:, 2], height, preprocessing)  # (B, S, height)
    columns = _resize_matrices(boxes[:, 1], boxes[:, 3], width, preprocessing)  # (B, S, width)
    columns[mirrored] = columns[mirrored].flip(1)
    planes = pixels.permute(0, 1, 3, 2).float().reshape(n, height, 3 * width)
    half = torch.bmm(rows, planes).view(n, preprocessing.size * 3, width)
    out = torch.bmm(half, columns.mT).view(n, preprocessing.size, 3, preprocessing.size).transpose(1, 2)
    return out.clamp_(0, 255) if preprocessing.interpolation == "bicubic" else out


def _resize_matrices(starts, lengths, full, preprocessing):
    """Rows of weights that resize [start, start + length) of an axis of `full` pixels to S pixels: (B, S, full)."""
    if full > SMALL:
        return _filter(starts, lengths, full, preprocessing)
    return _windows(full, preprocessing, starts.device)[lengths - 1, :, full - 1 - starts]


@functools.cache
def _windows(full, preprocessing, device):
    """The resize matrices of every crop of a short axis, from one table with a row of twice that length for each length
    of a crop: (length - 1, S, full - 1 - start, full)."""
    lengths = torch.arange(1, full + 1, device=device)
    table = _filter(torch.full_like(lengths, full - 1), lengths, 2 * full - 1, preprocessing)
    return table.unfold(2, full, 1)


def _filter(starts, lengths, full, preprocessing):
    """`_resize_matrices` by definition: a triangle (bilinear) or Keys' filter (bicubic, a = -1/2), widened by the scale
    when shrinking."""
    size = preprocessing.size
    scale = (lengths / size)[:, None, None]  # pixels in per pixel out
    centres = starts[:, None, None] + scale * (torch.arange(size, device=starts.device)[:, None] + 0.5)
    pixels = torch.arange(full, device=starts.device)
    t = ((pixels + 0.5 - centres) / scale.clamp_min(1)).abs_()  # (B, S, full)
    weights = kernel(t, preprocessing.interpolation)
    inside = (pixels >= starts[:, None]) & (pixels < (starts + lengths)[:, None])  # (B, full)
    weights = weights * inside[:, None]
    return (weights / weights.sum(dim=2, keepdim=True)).float()


def kernel(t, interpolation):
    """Weights at distances t of at least 0, in pixels: a triangle or Keys' filter."""
    if interpolation == "bilinear":
        return (1 - t).clamp_min_(0)
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0))
