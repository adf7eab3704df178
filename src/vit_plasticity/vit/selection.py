"""What a component is in a model: its parameters and modules."""

from torch import nn

from vit_plasticity.vit import adapters
from vit_plasticity.vit.components import MEASURABLE, WHOLES
from vit_plasticity.vit.families import family


def parameters(model, component):
    """Name → Parameter of what a Component trains beside the head and the final norm, in the model's order.

    Raises InputError for a range of blocks that the model does not have.
    """
    kind, blocks = family(model), family(model).blocks(model)
    component.blocks(len(blocks))
    if component.rank is not None:
        layers = linear_layers(model, component)
        of_adapters = {name for name, layer in adapters.names(model).items() if layer in layers}
        return {name: p for name, p in model.named_parameters() if name in of_adapters}
    chosen = set()
    for what, indices in component.terms:
        some = blocks if indices is None else [blocks[i] for i in indices]
        chosen |= {id(p) for p in _of_id(kind, model, what, some, everywhere=indices is None)}
    always = {id(p) for module in kind.head(model) for p in module.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) in chosen - always}


def _of_id(kind, model, what, blocks, everywhere):
    """Parameters of one id in some blocks, or everywhere in the model."""
    if what == "full":
        return model.parameters()
    if what == "embed":
        return [
            p for part in kind.embedding(model) for p in (part.parameters() if isinstance(part, nn.Module) else [part])
        ]
    if what == "bias":
        owners = [model] if everywhere else blocks
        return [p for owner in owners for name, p in owner.named_parameters() if name.split(".")[-1].endswith("bias")]
    return [p for block in blocks for p in _of_block(kind, block, what)]


def _of_block(kind, block, what):
    if what in MEASURABLE:
        for part in kind.parts(block, what):
            yield from part.parameters()
    elif what == "proj":
        yield from kind.projection(block).parameters()
    elif what == "qkv":  # all that makes queries, keys and values, their norms too
        after = {id(p) for p in kind.projection(block).parameters()}
        yield from (p for part in kind.parts(block, "mha") for p in part.parameters() if id(p) not in after)
    else:
        for part in WHOLES.get(what, ()):
            yield from _of_block(kind, block, part)


def by_block(model, parameters):
    """Index of a block → those of some named parameters that lie in it."""
    found = {}
    for index, block in enumerate(family(model).blocks(model)):
        inside = {id(p) for p in block.parameters()}
        if own := {name: p for name, p in parameters.items() if id(p) in inside}:
            found[index] = own
    return found


def linear_layers(model, component):
    """Names of the linear layers of a Component's blocks, in the model's order."""
    kind, blocks = family(model), family(model).blocks(model)
    component.blocks(len(blocks))
    chosen = set()
    for what, indices in component.terms:
        for i in range(len(blocks)) if indices is None else indices:
            chosen |= {id(p) for p in _of_block(kind, blocks[i], what)}
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = [name for name, module in linear.items() if id(module.weight) in chosen]
    return [name.removesuffix(".base_layer") for name in found]


def modules(model, component):
    """The modules, block after block, of a Component that is a measurable one, or a range of its blocks; None of
    others. There is one for each block, but for SwiGLU's fc1, which has two."""
    if component.base is None:
        return None
    kind, blocks = family(model), family(model).blocks(model)
    return [part for i in component.blocks(len(blocks)) for part in kind.parts(blocks[i], component.base.name)]
