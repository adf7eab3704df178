"""Plasticity: the mean rate of change of a component over pairs of images (arXiv 2602.06883, definition of plasticity).

The inputs x and y of a pair are the tokens that enter the first block for a source image (pre-training distribution)
and a target image (downstream test split); the component of every block is applied to them directly. fc2 takes them
padded with zeros to its input width. Only the norms of differences of outputs are needed, and `changes` has them
without the outputs.

Dimensions: N pairs, T targets, L tokens, D embedding width. All values are dimensionless.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import batches
from vit_plasticity.data import registry as datasets
from vit_plasticity.predictors import rates as changes
from vit_plasticity.predictors import sequential
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.vit import components

CHUNK_BYTES, GPU_CHUNK_BYTES = 24 * 2**20, 4 * 2**30
"""Working memory of a chunk of pairs; more does not make the matrix products faster."""


@dataclass(frozen=True)
class PlasticityParams:
    """pairs: number of image pairs; seed: of their sampling; relative_width: use fewer pairs once the interval of every
    block's mean is this narrow, as a share of the mean (see `sequential`), or 0 to use all."""

    pairs: int = 12800
    seed: int = 0
    relative_width: float = 0.0


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
        if component not in components.BLOCK_COMPONENTS:
            raise ValueError(
                f"no rate of change is defined for {component!r}; choose from {', '.join(components.BLOCK_COMPONENTS)}"
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
        (_, length), width = family.n_tokens(self.model), family.width(self.model)
        numbers = self.changes.numbers_per_pair(length, width) + (len(targets) + 1) * length * width
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


def pair_indices(n_source, n_target, params, same_images=False):
    """Which source and which target image make each pair: two int arrays (pairs,).

    Images are drawn in shuffled passes, so that each is used equally often; the source images do not depend on the
    target. same_images: source and target are one sample, in which no image is paired with itself.
    """

    def passes(n, stream, shift=0):
        random = np.random.default_rng([params.seed, stream])
        orders = [np.roll(random.permutation(n), shift) for _ in range(-(-params.pairs // n))]
        return np.concatenate(orders)[: params.pairs]

    return passes(n_source, 0), passes(n_target, 0, shift=1) if same_images else passes(n_target, 1)


def measure(model, source, target, component, params, same_images=False, batch=64):
    """Rates of change (n_blocks, pairs) of a component between the images of two dataset splits.

    With a relative_width there may be fewer pairs than params.pairs, never other ones.
    """
    device = next(model.parameters()).device
    preprocessing = vit.preprocessing(model)
    instrument = Instrument(model, component)
    sources, targets = pair_indices(len(source), len(target), params, same_images)

    def images(split, indices):
        pixels = batches.evaluation_pixels(split.images, preprocessing, indices)
        return batches.normalise(pixels.to(device), preprocessing)

    looks = sequential.looks(params.pairs) if params.relative_width else [params.pairs]
    rates, done = torch.empty(len(model.blocks), 0, dtype=torch.float64), 0
    for look in looks:
        parts = [rates]
        for start in range(done, look, batch):
            some = slice(start, min(start + batch, look))
            parts += [part.cpu() for part in instrument(images(source, sources[some]), [images(target, targets[some])])]
        rates, done = torch.cat(parts, dim=1), look
        if params.relative_width and sequential.narrow_enough(rates.numpy(), params.relative_width, len(looks)):
            break
    return rates


def main(argv=None):
    parser = cli.parser("plasticity", __doc__)
    parser.add_argument("--model", required=True, help="model folder (timm's local-directory format)")
    parser.add_argument(
        "--source", required=True, help="dataset folder whose test split stands for the pre-training images"
    )
    parser.add_argument(
        "--target", required=True, help="dataset folder whose test split is the downstream side of the pairs"
    )
    parser.add_argument("--component", required=True, choices=components.BLOCK_COMPONENTS)
    cli.add_table_arguments(parser, "rates of change, one row per block and pair")
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    params = cli.params(PlasticityParams, args.params)
    device = select_device(args.device, args.threads)
    source, target = datasets.open_dataset(args.source), datasets.open_dataset(args.target)
    model = vit.load(args.model, device)
    try:
        same_images = source.fingerprint == target.fingerprint
        rates = measure(model, source.split("test"), target.split("test"), args.component, params, same_images)
    except ValueError as error:
        raise InputError(f"{args.source} against {args.target}: {error}") from error
    n_blocks, n_pairs = rates.shape
    rows = {
        "block": np.repeat(np.arange(n_blocks), n_pairs),
        "pair": np.tile(np.arange(n_pairs), n_blocks),
        "rate": rates.flatten().numpy(),
    }
    key = {"model": Path(args.model).name, "dataset": target.name, "component": args.component}
    tables.write(
        args.output, rows, study=args.study, stage="plasticity", rev=args.rev, key=key, device=device_name(device)
    )
    print(f"plasticity of {args.component}: {rates.mean():.4f} over {n_blocks} blocks and {n_pairs} pairs")


if __name__ == "__main__":
    sys.exit(cli.run(main))
