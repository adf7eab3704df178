"""Plasticity: the mean rate of change of a component over pairs of images (arXiv 2602.06883, definition of plasticity).

The inputs x and y of a pair are the tokens that enter the first block for a source image (pre-training distribution)
and a target image (downstream test split); the component of every block is applied to them directly. fc2 takes them
padded with zeros to its input width. Only differences of outputs are needed, and they are had without the outputs:

- a linear layer gives f(x) - f(y) = W d with d = x - y, and ||W d||² = <WᵀW, dᵀd>: one Gram matrix per pair serves
  all blocks;
- class and register tokens are the same in x and y, so their rows of d are zero;
- LayerNorm normalises x and y the same way in every block: only the gains γ differ, and ||f(x) - f(y)||² = Σ_c γ_c²
  S_c;
- attention projects its heads linearly: the difference of the heads is projected, once.

Dimensions: N pairs, T targets, L tokens, D embedding width, H heads. All values are dimensionless.
"""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from vit_plasticity import batches, cli, components, datasets, models, tables
from vit_plasticity.cli import InputError

CHUNK_BYTES = 48 * 2**20
"""Working memory of a chunk of pairs; more does not make the matrix products faster."""


@dataclass(frozen=True)
class PlasticityParams:
    """pairs: number of image pairs; seed: of their sampling."""

    pairs: int = 12800
    seed: int = 0


@torch.inference_mode()
def rates_of_change(model, source, target, component):
    """Rates of change ‖f(x) − f(y)‖_F / ‖x − y‖_F of one component in every block, over pairs of images.

    source, target: (N, 3, S, S), already normalised, pair by pair. Returns float64 (n_blocks, N).
    Raises ValueError if a component has no rate of change (embed, full, sums), if source and target differ in shape,
    or if a pair coincides, where the ratio is undefined.
    """
    return rates_of_change_to_each(model, source, [target], component)[0]


@torch.inference_mode()
def rates_of_change_to_each(model, source, targets, component):
    """Rates of change between one source sample and each of several target samples, in one pass over the source.

    source: (N, 3, S, S); targets: T tensors of that shape. Returns a list of T float64 tensors (n_blocks, N), each
    equal to what `rates_of_change` gives.
    """
    if component not in components.BLOCK_COMPONENTS:
        raise ValueError(
            f"no rate of change is defined for {component!r}; choose from {', '.join(components.BLOCK_COMPONENTS)}"
        )
    for target in targets:
        if target.shape != source.shape:
            raise ValueError(
                f"source has shape {tuple(source.shape)} and target {tuple(target.shape)}; they must agree"
            )
    measure = {"ln1": _LayerNorms, "ln2": _LayerNorms, "fc1": _Linears, "fc2": _Linears, "mha": _Attentions}[component](
        [models.block_module(block, component) for block in model.blocks], model
    )
    length = model.patch_embed.num_patches + model.num_prefix_tokens
    numbers = measure.numbers_per_pair(length, model.embed_dim) + (len(targets) + 1) * length * model.embed_dim
    step = max(1, CHUNK_BYTES // (4 * numbers))
    chunks = [
        _rates_of_chunk(model, measure, source[start : start + step], [t[start : start + step] for t in targets])
        for start in range(0, len(source), step)
    ]
    return [torch.cat(rates, dim=1) for rates in zip(*chunks, strict=True)]


def _rates_of_chunk(model, measure, source, targets):
    """One chunk of pairs: a list of T float64 tensors (n_blocks, n)."""
    x = models.embed(model, source)  # (n, L, D)
    ys = [models.embed(model, target) for target in targets]  # T of (n, L, D)
    rates = []
    for y, change in zip(ys, measure.squared_changes(x, ys), strict=True):
        distance = (x - y).square().sum(dim=(1, 2), dtype=torch.float64)  # (n,)
        if not bool((distance > 0).all()):
            raise ValueError(
                "a source and a target image have the same embedding: the rate of change of such a pair is undefined"
            )
        rates.append((change.double().clamp_min(0) / distance).sqrt())
    return rates


class _LayerNorms:
    """‖LN(x) − LN(y)‖² of all blocks at once: normalised without gain, then one product with the squared gains."""

    def __init__(self, modules, model):
        eps = {module.eps for module in modules}
        if len(eps) != 1:
            raise ValueError(f"the LayerNorms of the blocks differ in eps ({sorted(eps)}); expected one value")
        self.eps = eps.pop()
        self.squared_gains = torch.stack([module.weight.double().square() for module in modules])  # (n_blocks, D)
        self.prefix = model.num_prefix_tokens

    def numbers_per_pair(self, length, width):
        return 3 * length * width

    def squared_changes(self, x, ys):
        normalised = self._normalise(x)
        for y in ys:
            per_channel = (normalised - self._normalise(y)).square_().sum(dim=1)  # (n, D)
            yield self.squared_gains @ per_channel.double().T  # (n_blocks, n)

    def _normalise(self, x):
        return functional.layer_norm(x[:, self.prefix :], x.shape[-1:], eps=self.eps)


class _Linears:
    """‖W d‖² of all blocks at once, as the inner product of the Gram matrices WᵀW and dᵀd."""

    def __init__(self, modules, model):
        # Zero padding of the input leaves only the first D columns of fc2 to act.
        weights = (module.weight[:, : model.embed_dim] for module in modules)
        self.grams = torch.stack([(w.T @ w).flatten() for w in weights])  # (n_blocks, D²)
        self.prefix = model.num_prefix_tokens

    def numbers_per_pair(self, length, width):
        return width * (width + 2 * length)

    def squared_changes(self, x, ys):
        for y in ys:
            d = (x - y)[:, self.prefix :]  # (n, L - prefix, D)
            gram = (d.mT @ d).flatten(1)  # (n, D²)
            yield self.grams @ gram.T  # (n_blocks, n)


class _Attentions:
    """‖MHA(x) − MHA(y)‖² block by block: heads of x and of each y, and one projection of their difference."""

    def __init__(self, modules, model):
        self.modules = modules

    def numbers_per_pair(self, length, width):
        return 8 * length * width

    def squared_changes(self, x, ys):
        changes = [x.new_empty(len(self.modules), len(x)) for _ in ys]
        for index, attention in enumerate(self.modules):
            heads = _heads(attention, x)
            for y, change in zip(ys, changes, strict=True):
                difference = functional.linear(heads - _heads(attention, y), attention.proj.weight)
                change[index] = difference.square_().sum(dim=(1, 2))
        return changes


def _heads(attention, x):
    """What a timm Attention feeds its output projection: (n, L, D) → (n, L, H · head width)."""
    n, length, _ = x.shape
    qkv = attention.qkv(x).view(n, length, 3, attention.num_heads, attention.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (n, H, L, head width)
    mixed = functional.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v)
    mixed = attention.norm(mixed.transpose(1, 2).reshape(n, length, attention.attn_dim))
    return mixed if attention.gate is None else mixed * attention.gate(x).sigmoid()


def pair_indices(n_source, n_target, params):
    """Which source and which target image make each pair: two int arrays (pairs,).

    Images are drawn in shuffled passes, so that each is used equally often; the source images do not depend on the
    target.
    """

    def passes(n, stream):
        random = np.random.default_rng([params.seed, stream])
        return np.concatenate([random.permutation(n) for _ in range(-(-params.pairs // n))])[: params.pairs]

    return passes(n_source, 0), passes(n_target, 1)


def measure(model, source, target, component, params, batch=64):
    """Rates of change (n_blocks, pairs) of a component between the images of two dataset splits."""
    device = next(model.parameters()).device
    preprocessing = models.preprocessing(model)

    def images(split, indices):
        pixels = batches.evaluation_pixels(split.images, preprocessing, indices)
        return batches.normalise(pixels.to(device), preprocessing)

    pairs = zip(*pair_indices(len(source.labels), len(target.labels), params), strict=True)
    rates = []
    while chunk := list(itertools.islice(pairs, batch)):
        x, y = zip(*chunk, strict=True)
        rates.append(rates_of_change(model, images(source, x), images(target, y), component).cpu())
    return torch.cat(rates, dim=1)


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
    device = models.use(args.device, args.threads)
    source, target = datasets.open_dataset(args.source), datasets.open_dataset(args.target)
    model = models.load(args.model, device)
    try:
        rates = measure(model, source.split("test"), target.split("test"), args.component, params)
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
        args.output, rows, study=args.study, stage="plasticity", rev=args.rev, key=key, device=models.describe(device)
    )
    print(f"plasticity of {args.component}: {rates.mean():.4f} over {n_blocks} blocks and {n_pairs} pairs")


if __name__ == "__main__":
    sys.exit(cli.run(main))
