"""The vocabulary: the components of a Vision Transformer, by what is trained. Standard library only.

A *component* is one of seven ids, or a sum of ids such as ``mha+fc1``. Five of them repeat in every block and have a
plasticity; ``embed`` (patch embedding, class token, positions) and ``full`` (everything) can only be trained.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Component:
    """One id of the vocabulary.

    id: the name in configs, paths and tables.
    label: the name in figures.
    module: the path of its module inside a timm block; empty for what is not part of a block.
    """

    id: str
    label: str
    module: str = ""


COMPONENTS = {
    c.id: c
    for c in (
        Component("ln1", "LN1", "norm1"),
        Component("mha", "MHA", "attn"),
        Component("ln2", "LN2", "norm2"),
        Component("fc1", "FC1", "mlp.fc1"),
        Component("fc2", "FC2", "mlp.fc2"),
        Component("embed", "Embedding"),
        Component("full", "Full"),
    )
}
"""Every id, in the order in which a block applies them."""

BLOCK_COMPONENTS = tuple(c.id for c in COMPONENTS.values() if c.module)
"""The ids that repeat in every block: those whose plasticity is defined."""


def parts(component):
    """The ids that a component is the sum of, in the order of the vocabulary: ``"mha+fc1"`` → ``("mha", "fc1")``.

    Raises ValueError for an unknown id, one named twice, ``full`` in a sum, or a sum that is out of order, so that each
    set of parameters has exactly one name.
    """
    ids = component.split("+")
    unknown = [i for i in ids if i not in COMPONENTS]
    if unknown:
        raise ValueError(
            f"unknown component {unknown[0]!r}; choose from {', '.join(COMPONENTS)}, or a sum such as mha+fc1"
        )
    if len(ids) > 1 and "full" in ids:
        raise ValueError(f"component {component!r}: full is everything already and cannot be part of a sum")
    ordered = tuple(i for i in COMPONENTS if i in ids)
    if tuple(ids) != ordered:
        raise ValueError(f"component {component!r}: name each id once, in this order: {'+'.join(ordered)}")
    return ordered


def label(component):
    """The name of a component in figures: ``"mha+fc1"`` → ``"MHA+FC1"``."""
    return "+".join(COMPONENTS[i].label for i in parts(component))
