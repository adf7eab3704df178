"""What every stage does with a model: embed, classify, take features, give it a head, choose what trains.

Dimensions: B images, S pixels a side, L tokens (class and register tokens first), D embedding width, K classes.
"""

import torch

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import adapters, components, kernels, masks, selection
from vit_plasticity.vit.families import family


def prepare(model):
    """The model, computing as fast as its device allows: attention and, on a CPU, Linear layers of the blocks.

    To be called when the model is on its device. Numbers change by rounding alone.
    """
    kernels.use_fast_linears(family(model).blocks(model))
    family(model).prepare(model)
    return model


def compile_blocks(model):
    """Let torch compile the blocks at their next call; they are alike, and share what is compiled."""
    for block in family(model).blocks(model):
        block.compile()


def new_head(model, n_classes, seed=None):
    """Replace the classifier by a zero one with `n_classes` outputs, as Dosovitskiy et al. (2021, section 3.2)
    fine-tune; with a seed, by one drawn as `torch.nn.Linear` draws its own, uniformly up to 1 / sqrt(inputs)."""
    family(model).new_head(model, n_classes)
    if seed is not None:
        for head in family(model).classifiers(model):
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in head.parameters():
                    drawn = torch.empty(parameter.shape).uniform_(-1, 1, generator=generator)
                    parameter.copy_(drawn / head.in_features**0.5)


def train_only(model, component):
    """Let the component train, with the head and the final norm, and freeze everything else; return the names that
    train.

    component: its name. Adapters that it asks for are put on, and those of before taken off; `prepare` comes after.
    Raises ValueError for an unknown one (see `components.parse`), InputError for a range of blocks that the model does
    not have.
    """
    chosen = components.parse(component)
    adapters.remove(model)
    masks.remove(model)
    if chosen.rank is not None:
        adapters.add(model, selection.linear_layers(model, chosen), chosen.rank)
    own = chosen.parameters(model)
    if chosen.size is not None:
        masks.add(model, selection.by_block(model, own), chosen.size, component)
    model.requires_grad_(False)
    for part in [*own.values(), *family(model).head(model)]:
        part.requires_grad_(True)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def embed(model, images):
    """Images (B, 3, S, S), already normalised → the tokens that enter the first block (B, L, D)."""
    return family(model).embed(model, images)


def logits(model, images, *, recompute=False):
    """Images (B, 3, S, S), already normalised → class logits (B, K), equal to ``model(images)``.

    recompute: trade time for memory by computing each block again in the backward pass.
    """
    return family(model).logits(model, images, recompute=recompute)


def features(model, images, pool):
    """Images (B, 3, S, S) → tokens after the last block, pooled to (B, D): their mean, or the class token.

    pool: "mean" (over all tokens) or "class". Raises InputError for "class" where the model has no class token.
    """
    kind, pooled = family(model), _pooling(model, pool)
    return pooled(kind.after_blocks(model, kind.embed(model, images)))


def features_by_tap(model, images, pool):
    """Images (B, 3, S, S) → (tap, block) → tokens there, pooled to (B, D) as by `features`, in the order of the taps.

    Taps: ("embed", None), what enters the first block; ("mha", i) and ("ffn", i), the residual stream after the
    attention and after the feed-forward branch of block i was added. The last one is what `features` gives.
    """
    kind, pooled, found = family(model), _pooling(model, pool), {}

    def read(tap, block):
        return lambda module, received: found.__setitem__((tap, block), pooled(received[0]))

    handles = []
    for i, block in enumerate(kind.blocks(model)):
        entered = ("ffn", i - 1) if i else ("embed", None)
        handles.append(kind.parts(block, "ln1")[0].register_forward_pre_hook(read(*entered)))
        handles.append(kind.parts(block, "ln2")[0].register_forward_pre_hook(read("mha", i)))
    try:
        tokens = kind.after_blocks(model, kind.embed(model, images))
    finally:
        for handle in handles:
            handle.remove()
    return found | {("ffn", len(kind.blocks(model)) - 1): pooled(tokens)}


def _pooling(model, pool):
    """The function that pools tokens (B, L, D) to (B, D)."""
    if pool == "class" and model.cls_token is None:
        raise InputError("probe.pool is 'class', and this model has no class token; choose 'mean'")
    return (lambda tokens: tokens[:, 0]) if pool == "class" else (lambda tokens: tokens.mean(dim=1))
