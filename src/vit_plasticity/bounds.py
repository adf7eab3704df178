"""Theoretical upper bounds on the rate of change of each component (arXiv 2602.06883, section on theory).

LayerNorm: max|γ|. Linear layer: σ_max(W). Attention, over heads h, with n tokens and r the root mean square norm of the
embedded tokens: Σ_h σ_max(O_h) σ_max(V_h) √(3n + (12n + 3) r⁴ σ_max(Q_hᵀ K_h / √d_h)²). Heads partition the output
rows of the query, key and value weights and the input columns of the output projection. Biases are left out, as in
the paper.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import batches
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.study.config import settings
from vit_plasticity.vit import components


@torch.inference_mode()
def upper_bounds(model, component, token_norm=None):
    """Upper bound on the rate of change of a component in every block: float64 (n_blocks,), dimensionless.

    token_norm: root mean square norm of the embedded tokens (see `root_mean_square_token_norm`); only attention needs
    it.
    """
    if component not in components.MEASURABLE:
        raise ValueError(f"no bound is known for {component!r}; choose from {', '.join(components.MEASURABLE)}")
    family = vit.family(model)
    modules = [family.part(block, component) for block in family.blocks(model)]
    if component in ("ln1", "ln2"):
        bounds = [module.weight.abs().max().item() for module in modules]
    elif component in ("fc1", "fc2"):
        bounds = [_largest_singular_value(module.weight) for module in modules]
    else:
        n_tokens = family.n_tokens(model)[1]
        bounds = [_attention_bound(family.attention(block), n_tokens, token_norm) for block in family.blocks(model)]
    return torch.tensor(bounds, dtype=torch.float64)


def _attention_bound(attention, n_tokens, token_norm):
    if attention is None:  # with query and key norms, a gate or a scaled norm, which the formula does not cover
        return math.nan
    heads = attention.heads
    q, k, v = (weight.double().unflatten(0, (heads, -1)) for weight in attention[:3])  # each (H, W, D)
    o = attention.output.double().unflatten(1, (heads, -1))  # (D, H, W)
    total = 0.0
    for h in range(heads):
        # Qᵀ K has the singular values of R_q R_kᵀ, the small triangular factors of Qᵀ and Kᵀ.
        r_q, r_k = torch.linalg.qr(q[h].T, mode="r").R, torch.linalg.qr(k[h].T, mode="r").R
        scores = _largest_singular_value(r_q @ r_k.T) / math.sqrt(q.shape[1])
        softmax = math.sqrt(3 * n_tokens + (12 * n_tokens + 3) * token_norm**4 * scores**2)
        total += _largest_singular_value(o[:, h]) * _largest_singular_value(v[h]) * softmax
    return total


def _largest_singular_value(matrix):
    return torch.linalg.matrix_norm(matrix.double(), ord=2).item()


@torch.inference_mode()
def root_mean_square_token_norm(model, split, n_images):
    """√(mean over tokens and images of ‖token‖²) of embedded images: the r of the attention bound.

    The first n_images of a random order of the split are used, or all where it has fewer.
    """
    preprocessing, device = vit.preprocessing(model), next(model.parameters()).device
    indices = np.random.default_rng(0).permutation(len(split.labels))[:n_images]
    total, count = 0.0, 0
    for chunk in np.array_split(indices, math.ceil(len(indices) / 64)):
        pixels = batches.evaluation_pixels(split.images, preprocessing, chunk).to(device)
        tokens = vit.embed(model, batches.normalise(pixels, preprocessing))
        total += tokens.square().sum(dtype=torch.float64).item()
        count += tokens.shape[0] * tokens.shape[1]
    return math.sqrt(total / count)


def main(argv=None):
    parser = cli.parser("bounds", __doc__)
    parser.add_argument("--model", required=True, help="model folder (timm's local-directory format)")
    parser.add_argument(
        "--source", required=True, help="dataset folder whose test split stands for the pre-training images"
    )
    parser.add_argument("--component", required=True, choices=components.MEASURABLE)
    cli.add_table_arguments(parser, "the upper bound of every block")
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    params = settings("bounds", args.params)
    device = select_device(args.device, args.threads)
    model = vit.load(args.model, device)
    token_norm = None
    if args.component == "mha":
        token_norm = root_mean_square_token_norm(model, datasets.open_dataset(args.source).split("test"), params.images)
    bounds = upper_bounds(model, args.component, token_norm)
    rows = {"block": np.arange(len(bounds)), "bound": bounds.numpy()}
    key = {"model": Path(args.model).name, "component": args.component}
    tables.write(args.output, rows, study=args.study, stage="bounds", rev=args.rev, key=key, device=device_name(device))


if __name__ == "__main__":
    sys.exit(cli.run(main))
