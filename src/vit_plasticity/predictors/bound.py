"""Upper bounds on the rate of change of each component, as in the paper (arXiv 2602.06883, section on theory).

LayerNorm: max|γ|. Linear layer: σ_max(W). Attention, over heads h, with n tokens and r the root mean square norm of the
embedded tokens: Σ_h σ_max(O_h) σ_max(V_h) √(3n + (12n + 3) r⁴ σ_max(Q_hᵀ K_h / √d_h)²). Biases are left out, as in
the paper. Real tokens break what two of these assume; `bound_holding` is the bound that holds for the tokens measured.
"""

import math

import torch

from vit_plasticity import vit
from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.task import by_block


@predictor
def bound(task):
    """The bound of every block, and their mean."""
    norm = {"mha": lambda: task.tokens.root_mean_square}
    return by_block(task, lambda one: paper_bounds(task.model, one, norm.get(one, lambda: None)()))


@torch.inference_mode()
def paper_bounds(model, component, token_norm):
    """The paper's bound of one measurable component in every block: list of floats, None where the formula does not
    cover the block's attention.

    token_norm: root mean square norm of the embedded tokens; only attention needs it.
    """
    family = vit.family(model)
    if component in ("ln1", "ln2"):
        return [module.weight.abs().max().item() for b in family.blocks(model) for module in family.parts(b, component)]
    if component in ("fc1", "fc2"):
        return linear_bounds(model, component)
    n_tokens = family.n_tokens(model)[1]
    attentions = map(family.attention, family.blocks(model))
    return [None if one is None else attention_bound(one, n_tokens, token_norm) for one in attentions]


@torch.inference_mode()
def linear_bounds(model, component):
    """σ_max(W) of every block."""
    family = vit.family(model)
    parts = [family.parts(block, component) for block in family.blocks(model)]
    return [_largest(torch.cat([module.weight for module in modules])) for modules in parts]


def attention_bound(attention, n_tokens, token_norm, biased=False):
    """The formula for one attention, from its weights (see `families.Attention`).

    biased: with the bias b of the queries, which adds (K_hᵀ b)ᵀ x_j to the score of token j. That is the formula for
    tokens with one more coordinate, a constant t: their norm is √(r² + t²), Q_hᵀ K_h gets the row (K_hᵀ b)ᵀ / t, and
    their differences are as before. The t of `_SHARES` that gives the smallest bound is taken; any is valid.
    """
    q, k, v, o = (matrix.double() for matrix in attention[:4])
    heads, width = attention.heads, len(q) // attention.heads
    bias = attention.query_bias if biased else None
    total = 0.0
    for h in range(heads):
        rows = slice(h * width, (h + 1) * width)
        softmax = _softmax_factor(q[rows], k[rows], None if bias is None else bias[rows].double(), n_tokens, token_norm)
        total += _largest(o[:, rows]) * _largest(v[rows]) * softmax
    return total


_SHARES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
"""The added constant, in units of the token norm."""


def _softmax_factor(q, k, bias, n_tokens, norm):
    """√(3n + (12n + 3) r⁴ σ_max²) of one head: q, k (W, D), bias (W,) or None."""
    # Qᵀ K has the singular values of R_q R_kᵀ, the small triangular factors of Qᵀ and Kᵀ.
    r_k = torch.linalg.qr(k.T, mode="r").R
    candidates = [(norm, q)]
    if bias is not None and bias.any():
        candidates = [
            (norm * math.sqrt(1 + share**2), torch.cat([q, bias[:, None] / (share * norm)], 1)) for share in _SHARES
        ]
    products = []
    for size, queries in candidates:
        r_q = torch.linalg.qr(queries.T, mode="r").R
        products.append(size**2 * _largest(r_q @ r_k.T) / math.sqrt(len(q)))
    return math.sqrt(3 * n_tokens + (12 * n_tokens + 3) * min(products) ** 2)


def _largest(matrix):
    """The largest singular value."""
    return torch.linalg.matrix_norm(matrix.double(), ord=2).item()
