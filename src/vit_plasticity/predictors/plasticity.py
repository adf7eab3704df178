"""Plasticity: the mean rate of change of a component over pairs of images (arXiv 2602.06883, definition of plasticity).

The inputs x and y of a pair are the tokens that enter the first block for a source image (pre-training distribution)
and a target image (downstream test split); the component of every block is applied to them directly. fc2 takes them
padded with zeros to its input width. Only the norms of differences of outputs are needed, and `rates` has them
without the outputs.

Dimensions: N pairs, T targets, L tokens, D embedding width. All values are dimensionless.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch

from vit_plasticity import vit
from vit_plasticity.predictors import points, predictor, sequential
from vit_plasticity.predictors import rates as changes
from vit_plasticity.predictors.task import with_intervals
from vit_plasticity.vit import components

CHUNK_BYTES, GPU_CHUNK_BYTES = 8 * 2**20, 4 * 2**30
"""Working memory of a chunk of pairs with one target; more does not make the matrix products faster."""


@predictor
def plasticity(task):
    """Mean rate of change of every block over pairs, and the mean over blocks; intervals resample images.

    A study measures it in a stage of its own, one job per component for all datasets (see `measure`).
    """
    params = SimpleNamespace(pairs=task.settings.pairs, seed=task.settings.seed, relative_width=0.0)
    targets = [(task.target, task.same_images)]
    return with_intervals(
        task, lambda one: torch.from_numpy(measure(task.model, task.source, targets, one, params)[0].rates)
    )


def rates_of_change(model, source, target, component):
    """Rates of change ‖f(x) − f(y)‖_F / ‖x − y‖_F of one component in every block, over pairs of images.

    source, target: (N, 3, S, S), already normalised, pair by pair. Returns float64 (n_blocks, N).
    Raises ValueError if a component has no rate of change (embed, full, sums), if source and target differ in shape,
    or if a pair coincides, where the ratio is undefined.
    """
    return rates_of_change_to_each(model, source, [target], component)[0]


def rates_of_change_to_each(model, source, targets, component):
    """Rates of change between one source sample and each of several target samples, in one pass over the source.

    source: (N, 3, S, S); targets: T tensors of that shape. Returns a list of T float64 tensors (n_blocks, N), each
    equal to what `rates_of_change` gives.
    """
    return Instrument(model, component)(source, targets)


class Instrument:
    """What measures one component of a model: called as `instrument(source, targets)`, like `rates_of_change_to_each`.

    It holds what does not depend on images, for measurements that are done in parts.
    """

    @torch.inference_mode()
    def __init__(self, model, component):
        if component not in components.MEASURABLE:
            raise ValueError(
                f"no rate of change is defined for {component!r}; choose from {', '.join(components.MEASURABLE)}"
            )
        self.model, self.changes = model, changes.changes(model, component)

    @torch.inference_mode()
    def __call__(self, source, targets):
        for target in targets:
            if target.shape != source.shape:
                raise ValueError(
                    f"source has shape {tuple(source.shape)} and target {tuple(target.shape)}; they must agree"
                )
        family = vit.family(self.model)
        length, width = family.n_tokens(self.model)[1], family.width(self.model)
        # Chunks do not depend on the number of targets: a target's rates are the same bits beside any others.
        numbers = self.changes.numbers_per_pair(length, width) + 2 * length * width
        step = max(1, (GPU_CHUNK_BYTES if source.is_cuda else CHUNK_BYTES) // (4 * numbers))
        chunks = [
            self._rates_of_chunk(source[start : start + step], [t[start : start + step] for t in targets])
            for start in range(0, len(source), step)
        ]
        return [torch.cat(rates, dim=1) for rates in zip(*chunks, strict=True)]

    def _rates_of_chunk(self, source, targets):
        """One chunk of pairs: a list of T float64 tensors (n_blocks, n)."""
        # Left alone, cuDNN would embed patches in TF32, with three digits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            x = vit.embed(self.model, source)  # (n, L, D)
            ys = [vit.embed(self.model, target) for target in targets]  # T of (n, L, D)
        rates = []
        for y, change in zip(ys, self.changes.squared_changes(x, ys), strict=True):
            distance = (x - y).square().sum(dim=(1, 2), dtype=torch.float64)  # (n,)
            if not bool((distance > 0).all()):
                raise ValueError(
                    "a source and a target image have the same embedding: the rate of change of such a pair is "
                    "undefined"
                )
            rates.append((change.double().clamp_min(0) / distance).sqrt())
        return rates


@dataclass
class Measurement:
    """One component against one target: rates float64 (n_blocks, N); source_image, target_image (N,) say which images
    of the splits make each pair. Indices may be longer than the rates, until the measurement is complete."""

    split: object
    source_image: np.ndarray
    target_image: np.ndarray
    same_images: bool
    rates: np.ndarray = field(default=None)

    def add(self, rates):
        self.rates = rates if self.rates is None else np.concatenate([self.rates, rates], axis=1)

    def complete(self):
        n = self.rates.shape[1]
        self.source_image, self.target_image = self.source_image[:n], self.target_image[:n]
        return self

    def interval(self, n_looks=1):
        """Mean of every block and its interval at one of `n_looks` looks: three arrays (n_blocks,)."""
        n = self.rates.shape[1]
        return sequential.interval(
            self.rates, self.source_image[:n], self.target_image[:n], n_looks, same_images=self.same_images
        )


def measure(model, source, targets, component, params, batch=64):
    """Rates of change of a component between a source split and each target, in one pass: a list of Measurement.

    targets: (split, same_images) each; same_images where the split is the source itself. params: pairs, seed,
    relative_width, with which there may be fewer pairs than params.pairs, never other ones.
    """
    instrument = Instrument(model, component)
    measured = [
        Measurement(split, *points.pair_indices(len(source), len(split), params, same), same) for split, same in targets
    ]
    looks = sequential.looks(params.pairs) if params.relative_width else [params.pairs]
    active, done = measured, 0
    for look in looks:
        for start in range(done, look, batch):
            some = slice(start, min(start + batch, look))
            images = points.images(model, source, measured[0].source_image[some])
            of_targets = [points.images(model, one.split, one.target_image[some]) for one in active]
            for one, rates in zip(active, instrument(images, of_targets), strict=True):
                one.add(rates.cpu().numpy())
        done = look
        if params.relative_width:
            active = [m for m in active if not sequential.narrow_enough(*m.interval(len(looks)), params.relative_width)]
        if not active:
            break
    return [one.complete() for one in measured]
