"""Upper bounds on the rate of change that hold for the tokens measured; beside the paper's, `bound`, which need not.

The paper's bounds assume LayerNorm inputs of deviation at least 1, attention inputs whose norm is at most its root mean
square, and no biases. What holds for all tokens measured: LayerNorm max|γ| / s, with s the smallest √(variance
+ ε) of a patch token; attention with r the largest token norm, and with the bias of the queries (see
`bound.attention_bound`). Class and register tokens are the same in every image, and change nothing for LayerNorm.
"""

import torch

from vit_plasticity import vit
from vit_plasticity.predictors import predictor
from vit_plasticity.predictors.bound import attention_bound, linear_bounds
from vit_plasticity.predictors.task import by_block


@predictor
def bound_holding(task):
    """The bound of every block, and their mean; null where the formula does not cover an attention."""
    return by_block(task, lambda component: holding_bounds(task.model, component, task.tokens))


@torch.inference_mode()
def holding_bounds(model, component, tokens):
    """The bound of one measurable component in every block: list of floats, None where it has none.

    tokens: a `points.Tokens` of all images that are measured.
    """
    family = vit.family(model)
    blocks = family.blocks(model)
    if component in ("ln1", "ln2"):
        norms = [norm for block in blocks for norm in family.parts(block, component)]
        return [norm.weight.abs().max().item() / (tokens.smallest_variance + norm.eps) ** 0.5 for norm in norms]
    if component in ("fc1", "fc2"):
        return linear_bounds(model, component)
    n_tokens, attentions = family.n_tokens(model)[1], map(family.attention, blocks)
    return [None if one is None else attention_bound(one, n_tokens, tokens.largest_norm, True) for one in attentions]
