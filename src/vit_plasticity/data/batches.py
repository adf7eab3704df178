"""Batches of images: random crops for training, as a pure function of (dataset, seed, step), and centre crops for
evaluation.

Dimensions: n images, B batch, S the model's image size in pixels; stored images are uint8 (height, width, 3).
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.nn import functional

from vit_plasticity.data import crops

_ORDER, _CROPS = 0, 1  # independent random streams of one key
KEPT = 2**31
"""Bytes of images, ready for the model, that are kept to be evaluated again: 14,000 images of 224 pixels."""
LONG = 8
"""Of images longer than this many times their width, evaluation resizes only what it keeps: memory has a bound."""


class TrainingBatches:
    """Normalised training batches: RandomResizedCrop and horizontal flip, after torchvision's definition of both.

    `self(t)` is a pure function of (dataset, seed, t): the order of the images, their crops and their flips come from a
    counter-based generator, so that a resumed run sees exactly the batches of one that was never interrupted.
    """

    RATIO = (3 / 4, 4 / 3)
    TRIES = 10

    def __init__(self, split, key, preprocessing, *, batch_size, crop_scale, flip, device="cpu", threads=1):
        """split: images and labels; key: bytes naming (dataset, seed); crop_scale: (least, most) share of the area
        kept."""
        self.images, self.labels = split.images, torch.tensor(split.labels)
        self.preprocessing = preprocessing
        self.batch_size, self.crop_scale, self.flip, self.device = batch_size, crop_scale, flip, torch.device(device)
        self.key = np.frombuffer(hashlib.sha256(key).digest()[:16], dtype=np.uint64)
        self._epoch = (-1, None)
        self._made, self._next = {}, (None, None)
        self.ahead = self.pool = None
        if self.device.type == "cuda":
            self.make_ahead(threads)

    def __call__(self, step):
        """The batch of step `step` (from 0): images (B, 3, S, S) float32 normalised, labels (B,) int64, on the
        device."""
        if self.ahead is None:
            if step not in self._made:
                # Small batches are made some steps at once: one by one, calling torch would cost more than computing.
                at_once = max(1, 2**18 // (self.batch_size * self.preprocessing.size**2))
                self._made = dict(enumerate(self._make(step, at_once), step))
            return self._made.pop(step)
        next_step, batches = self._next
        batches = batches.result() if batches else None  # waited for in any case: threads would share one permutation
        if next_step != step:
            batches = self._make(step, 1)
        self._next = step + 1, self.ahead.submit(self._make, step + 1, 1)
        return batches[0]

    def make_ahead(self, threads):
        """From now on, make each next batch while this one is used, on `threads` threads: a GPU leaves its CPU idle."""
        self.ahead = ThreadPoolExecutor(1)
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def _make(self, first, n_steps):
        """The batches of `n_steps` steps from step `first` on."""
        steps = range(first, first + n_steps)
        index = np.concatenate([self.indices(step) for step in steps])
        shapes = image_shapes(self.images, index).reshape(n_steps, self.batch_size, 2)
        boxes, flips = map(np.concatenate, zip(*map(self.crops, steps, shapes), strict=True))
        images = _empty((len(index), self.preprocessing.size, self.preprocessing.size, 3), self.device)
        # On a CPU, few enough at a time to stay in its cache.
        n = max(16, 2**16 // self.preprocessing.size**2) if self.device.type == "cpu" else len(index)
        for start in range(0, len(index), n):
            some = slice(start, start + n)
            normalise(self._crop(index[some], boxes[some], flips[some]), self.preprocessing, out=images[some])
        labels = self.labels[index].to(self.device, non_blocking=True)
        images = images.permute(0, 3, 1, 2)
        return list(zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True))

    def indices(self, step):
        """Which images are in the batch (B,): epochs are shuffled one after the other, and a batch may span two."""
        first, n = step * self.batch_size, len(self.labels)
        positions = np.arange(first, first + self.batch_size)
        epochs = np.unique(positions // n)
        return np.concatenate([self._permutation(epoch)[positions[positions // n == epoch] % n] for epoch in epochs])

    def crops(self, step, shapes):
        """Crop boxes (B, 4) as top, left, height, width in pixels, and flips (B,), for images of `shapes` (B, 2)."""
        random = self._generator(_CROPS, step)
        size = (len(shapes), self.TRIES)
        heights, widths = shapes[:, :1].astype(float), shapes[:, 1:].astype(float)
        area = heights * widths * random.uniform(*self.crop_scale, size)
        ratio = np.exp(random.uniform(*np.log(self.RATIO), size))
        h, w = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
        fits = (h > 0) & (h <= heights) & (w > 0) & (w <= widths)
        chosen = np.arange(len(shapes)), fits.argmax(axis=1)  # the first try that fits
        top, left = random.uniform(size=(2, len(shapes)))
        flips = random.uniform(size=len(shapes)) < (0.5 if self.flip else 0.0)
        # An image in which no try fits keeps its largest central part of an allowed ratio.
        h = np.where(fits.any(axis=1), h[chosen], np.minimum(heights[:, 0], np.rint(widths[:, 0] / self.RATIO[0])))
        w = np.where(fits.any(axis=1), w[chosen], np.minimum(widths[:, 0], np.rint(heights[:, 0] * self.RATIO[1])))
        top = np.where(fits.any(axis=1), np.floor(top * (heights[:, 0] - h + 1)), (heights[:, 0] - h) // 2)
        left = np.where(fits.any(axis=1), np.floor(left * (widths[:, 0] - w + 1)), (widths[:, 0] - w) // 2)
        return np.stack([top, left, h, w], axis=1).astype(np.int64), flips

    def _crop(self, index, boxes, flips):
        """Crops in [0, 255], on the device: (B, 3, S, S), uint8 or float32."""
        size, uniform = self.preprocessing.size, self.images.uniform
        if uniform is not None and crops.suits(uniform, size, self.device):
            pixels = torch.from_numpy(uniform[index]).to(self.device, non_blocking=True)
            return crops.crop_uniform(pixels, boxes, flips, self.preprocessing)
        cropped = torch.empty((len(index), size, size, 3), dtype=torch.uint8, pin_memory=self.device.type == "cuda")

        def one(i, box, flip, out):
            top, left, height, width = box
            crop = self.images[i][None, top : top + height, left : left + width]
            resized = _resize(crop, (size, size), self.preprocessing.interpolation).permute(0, 2, 3, 1)[0]
            out.copy_(resized.flip(1) if flip else resized)

        for _ in (self.pool.map if self.pool else map)(one, index, boxes, flips, cropped):
            pass
        return cropped.permute(0, 3, 1, 2).to(self.device, non_blocking=True)

    def _permutation(self, epoch):
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._generator(_ORDER, epoch).permutation(len(self.labels))
        return self._epoch[1]

    def _generator(self, stream, counter):
        return np.random.Generator(np.random.Philox(key=self.key, counter=[0, 0, stream, counter]))


def image_shapes(images, indices):
    """Heights and widths (B, 2) of some images, in pixels."""
    if images.uniform is not None:
        return np.broadcast_to(images.uniform.shape[1:3], (len(indices), 2))
    return np.array([images[i].shape[:2] for i in indices])


def kept(images, preprocessing, most=KEPT):
    """For images that are evaluated more than once: their `evaluation_pixels` if these have at most `most` bytes, else
    the images themselves, so that memory does not grow with their number. `evaluation` gives the same for both."""
    small = len(images) * 3 * preprocessing.size**2 <= most
    return evaluation_pixels(images, preprocessing) if small else images


def evaluation(images, preprocessing, *, batch_size=256, device="cpu", indices=None):
    """Batches of images as evaluation sees them, in order: yields (B, 3, S, S) float32, normalised, on the device.

    images: those of a split, of which `indices` are taken (default: all); or `kept` ones, where
    they are evaluated more than once.
    """
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    for start in range(0, len(indices), batch_size):
        some = indices[start : start + batch_size]
        pixels = images[some] if torch.is_tensor(images) else evaluation_pixels(images, preprocessing, some)
        yield normalise(pixels.to(device, non_blocking=True), preprocessing)


def evaluation_pixels(images, preprocessing, indices=None):
    """Images as evaluation sees them, before normalisation: shorter side resized, centre cropped; (n, 3, S, S)
    uint8."""
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    size, short = preprocessing.size, int(preprocessing.size / preprocessing.crop_share)
    out = torch.empty(len(indices), size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    step = 64 if images.uniform is not None else 1
    for start in range(0, len(indices), step):
        some = indices[start : start + step]
        stack = images.uniform[some] if images.uniform is not None else images[some[0]][None]
        height, width = stack.shape[1:3]
        scaled = [max(short, int(short * side / min(height, width))) for side in (height, width)]
        if max(scaled) > LONG * short:
            out[start : start + step] = _resize_centre(stack, scaled, preprocessing)
            continue
        resized = _resize(stack, scaled, preprocessing.interpolation)
        top, left = (round((side - size) / 2) for side in scaled)
        out[start : start + step] = resized[..., top : top + size, left : left + size]
    return out


def normalise(pixels, preprocessing, out=None):
    """Pixels in [0, 255] (n, 3, S, S) → float32 with the model's channel means and standard deviations, channels last
    in memory, which embedding patches prefers. out: where to write it, (n, S, S, 3)."""
    n, channels, height, width = pixels.shape
    if out is None:
        out = _empty((n, height, width, channels), pixels.device)
    mean, std = (torch.tensor(v, device=pixels.device).repeat(width) for v in (preprocessing.mean, preprocessing.std))
    out.copy_(pixels.permute(0, 2, 3, 1))
    out.view(n, height, -1).mul_(1 / (255 * std)).sub_(mean / std)
    return out.permute(0, 3, 1, 2)


def _resize(images, size, interpolation):
    """Images of one shape (n, height, width, 3) uint8 → (n, 3, *size) uint8, antialiased."""
    # In C order, also over the axis of one image: torch has a fast path for channels that lie last, and looks there.
    tensor = torch.from_numpy(np.array(images, order="C")).permute(0, 3, 1, 2)
    if tensor.shape[2:] == torch.Size(size):
        return tensor
    return functional.interpolate(tensor, size=size, mode=interpolation, antialias=True)


def _resize_centre(images, size, preprocessing):
    """The central S x S pixels of images of one shape (n, height, width, 3), resized to `size`: (n, 3, S, S) uint8."""
    (rows, down), (columns, across) = (
        _centre(full, scaled, preprocessing) for full, scaled in zip(images.shape[1:3], size, strict=True)
    )
    pixels = torch.from_numpy(np.array(images[:, rows, columns])).float()
    # Whole values after each pass, as torch has them.
    wide = torch.einsum("nhwc,tw->nhtc", pixels, across).round_().clamp_(0, 255)
    return torch.einsum("sh,nhtc->ncst", down, wide).round_().clamp_(0, 255).to(torch.uint8)


def _centre(full, scaled, preprocessing):
    """Of an axis of `full` pixels, resized to `scaled`: what its central S are made of, and its weights (S, pixels)."""
    scale, left = full / scaled, round((scaled - preprocessing.size) / 2)
    centres = scale * (torch.arange(left, left + preprocessing.size, dtype=torch.float64) + 0.5)
    reach = 2 * max(scale, 1)  # of the wider filter
    used = slice(max(0, int(centres[0] - reach)), min(full, int(centres[-1] + reach) + 1))
    distances = (torch.arange(used.start, used.stop) + 0.5 - centres[:, None]).abs_() / max(scale, 1)
    weights = crops.kernel(distances, preprocessing.interpolation)
    return used, (weights / weights.sum(dim=1, keepdim=True)).float()


def _empty(shape, device):
    """Memory for float32 numbers. NumPy asks for huge pages, without which first touching a batch costs more than
    filling it."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    return torch.empty(shape, dtype=torch.float32, device=device)
