"""The vocabulary: the components of a Vision Transformer, by what is trained. Standard library only.

``lora8:`` before a name trains low-rank adapters of rank 8 on its linear layers in place of the layers themselves.
``~1536`` after a single term trains that many values of it in each block, drawn at random.
``auto:plasticity:2`` is the sum of the two single components of a study that a predictor puts first, per model and
dataset; ``auto:random:2`` of two drawn ones. See `vit_plasticity.training.adaptive`.
A name is a sum of terms, such as ``mha+fc1``. A term is an id, in all blocks or in a range of them: ``mha``,
``mha@0-5``, ``mha@11``. Each set of parameters has exactly one name; `parse` refuses every other and says the right
one. The number of blocks is the model's: that a range ends below it is checked where the model is known.
"""

import difflib
import functools
import re
from dataclasses import dataclass

from vit_plasticity.runtime.cli import InputError

LABELS = {
    "ln1": "LN1",
    "mha": "MHA",
    "qkv": "QKV",
    "proj": "Projection",
    "ln2": "LN2",
    "norm": "Norms",
    "fc1": "FC1",
    "fc2": "FC2",
    "ffn": "FFN",
    "embed": "Embedding",
    "bias": "Biases",
    "full": "Full",
    "head": "Head",
}
"""Every id and its name in figures, in the order that sums and tables keep."""

MEASURABLE = ("ln1", "mha", "ln2", "fc1", "fc2")
"""The ids whose plasticity is defined, in the order in which a block applies them."""

WHOLES = {"mha": ("qkv", "proj"), "norm": ("ln1", "ln2"), "ffn": ("fc1", "fc2")}
"""An id of a block → the two that it consists of."""

ALONE = ("full", "head")
"""Ids that stand in no sum: everything, and the head and final norm that every component trains."""

IN_BLOCKS = tuple(id for id in LABELS if id not in ("embed", *ALONE))
"""Ids of which a range of blocks can be named."""

MASKED = tuple(id for id in IN_BLOCKS if id != "bias")
"""Ids of which a number of values per block can be trained."""

LINEAR = ("mha", "qkv", "proj", "fc1", "fc2", "ffn")
"""Ids with linear layers, which can have adapters."""

PATTERN = r"[a-z0-9:+@~_-]+"
"""A regular expression that every name matches; its characters are safe in paths and in a shell."""

_TERM = re.compile(r"([^@]*)(?:@([0-9]{1,3})(?:-([0-9]{1,3}))?)?")
_ADAPTIVE = re.compile(r"auto:([a-z0-9_]+):([1-9][0-9]?)")
_ADAPTED = re.compile(r"lora([0-9]{1,4}):")
_MASKED = re.compile(r"~([0-9]{1,12})$")
_NOT_SINGLE = {"full", "embed", "head", "bias", "norm", "ffn"}
_PARTS_OF_BLOCKS = tuple(id for id in IN_BLOCKS if id not in (*WHOLES, "bias"))


@dataclass(frozen=True)
class Component:
    """What is trained, by its name; made by `parse`.

    terms: (id, blocks) each, blocks a tuple of consecutive indices, or None for all.
    rank: of low-rank adapters, or None where the parameters themselves train.
    size: how many values of each block train, or None for all.
    auto: (predictor, number of components) of an adaptive component, which has no terms; None of every other.
    """

    name: str
    terms: tuple
    rank: int | None = None
    size: int | None = None
    auto: tuple | None = None

    @property
    def parts(self):
        """The terms of a sum as Components, each with a name of its own; of a single term itself alone."""
        if len(self.terms) == 1:
            return (self,)
        return tuple(parse(_adapted(self.rank) + _written(*term)) for term in self.terms)

    @property
    def label(self):
        """The name in figures: ``mha@0-5+fc1`` → ``MHA 0-5+FC1``."""
        if self.auto:
            return f"Auto-{self.auto[1]} {self.auto[0].replace('_', ' ')}"
        terms = "+".join(_written(LABELS[id], blocks, " ") for id, blocks in self.terms) + _masked(self.size, " ~ ")
        return terms if self.rank is None else f"LoRA-{self.rank} {terms}"

    @property
    def order(self):
        """Sort key: single ids in the order of the vocabulary, each before its ranges of blocks; then sums; then
        masks; then adapters; then adaptive ones."""
        ids = list(LABELS)
        return (
            self.auto or (),
            self.rank or 0,
            self.size or 0,
            len(self.terms),
            [(ids.index(id), blocks or ()) for id, blocks in self.terms],
        )

    @property
    def measurable(self):
        """Whether its plasticity is defined."""
        return self.name in MEASURABLE

    @property
    def base(self):
        """The measurable Component that it is, or is a range of blocks of, masked or not; None for what is
        neither, and for adapters."""
        ids = {id for id, _ in self.terms}
        return parse(*ids) if self.rank is None and len(ids) == 1 and ids < {*MEASURABLE} else None

    def blocks(self, n_blocks):
        """Indices of the blocks, of a model of `n_blocks`, in which something of it trains; none of `embed`, `head`.

        Raises InputError for a range that the model does not have.
        """
        used = set()
        for id, blocks in self.terms:
            if blocks and blocks[-1] >= n_blocks:
                raise InputError(
                    f"component {self.name!r}: the model's blocks are 0 to {n_blocks - 1}; choose a range of these"
                )
            if id not in ("embed", "head"):
                used.update(range(n_blocks) if blocks is None else blocks)
        return sorted(used)

    def parameters(self, model):
        """Its parameters of a model by their names, in the model's order, without head and final norm.

        Those of adapters are had once `vit.train_only` has put them on; before there are none. Raises InputError for an
        adaptive component, which has none before it is resolved.
        """
        if self.auto:
            raise InputError(
                f"component {self.name!r}: what it trains is chosen for a model and a dataset when a study fine-tunes "
                "it; name a component itself here"
            )
        from vit_plasticity.vit import selection  # needs torch, which names do not

        return selection.parameters(model, self)

    @property
    def leaves(self):
        """What the terms are made of: a set of (id that no other id is part of, block), block None for all."""
        return {
            (part, block)
            for id, blocks in self.terms
            for part in WHOLES.get(id, (id,))
            for block in ((None,) if blocks is None else blocks)
        }

    def overlaps(self, other):
        """Whether the terms share parameters with those of another Component, in a model that has them all."""
        return any(
            part == also and (block == there or None in (block, there))
            for part, block in self.leaves
            for also, there in other.leaves
        )

    def modules(self, model):
        """Its modules of a model, block after block of `blocks`, or None unless `base` is measurable."""
        from vit_plasticity.vit import selection

        return selection.modules(model, self)


@functools.cache
def parse(name):
    """The Component of a name.

    Raises ValueError for an unknown id, for a range of blocks of what is not in blocks, and for what has another name.
    """
    if adaptive := _ADAPTIVE.fullmatch(name):
        return Component(name, (), auto=(adaptive[1], int(adaptive[2])))
    if name.startswith("auto:"):
        raise ValueError(f"component {name!r}: write auto:PREDICTOR:NUMBER, from 1 to 99, such as auto:plasticity:2")
    adapted = _ADAPTED.match(name)
    rank = int(adapted[1]) if adapted else None
    terms, size = name[adapted.end() if adapted else 0 :], None
    if masked := _MASKED.search(terms):
        terms, size = terms[: masked.start()], int(masked[1])
    terms = [_term(name, text) for text in terms.split("+")]
    ids = [id for id, _ in terms]
    if len(terms) > 1 and "full" in ids:
        raise ValueError(f"component {name!r}: full is everything already and cannot be part of a sum")
    if len(terms) > 1 and "head" in ids:
        raise ValueError(f"component {name!r}: every component trains the head; leave it out of the sum")
    if adapted and (without := [id for id in ids if id not in LINEAR]):
        raise ValueError(
            f"component {name!r}: {without[0]} has no linear layers of blocks, which adapters are for; choose from "
            f"{', '.join(LINEAR)}, their ranges of blocks and sums"
        )
    if rank == 0:
        raise ValueError(f"component {name!r}: the rank of adapters is at least 1, such as lora8:mha")
    ordered = _canonical(terms)
    if size is not None and (size == 0 or adapted or len(ordered) > 1 or ordered[0][0] not in MASKED):
        raise ValueError(
            f"component {name!r}: ~ goes with a number from 1 and a single term, such as mha~1536 or mha@0-5~1536; "
            f"choose it from {', '.join(MASKED)}"
        )
    right = _adapted(rank) + "+".join(_written(*term) for term in ordered) + _masked(size)
    if name != right and set(terms) == set(ordered):
        raise ValueError(f"component {name!r}: name each id once, in this order: {right}")
    if name != right:
        raise ValueError(f"component {name!r} is called {right}; each set of parameters has one name")
    return Component(name, ordered, rank, size)


def union(components):
    """The Component that trains what several do, none of which has adapters, masks, or is adaptive."""
    return parse("+".join(_written(*term) for term in _canonical([t for one in components for t in one.terms])))


def is_single(name):
    """Whether a component is one that predictors are judged on: one part of every block, or of a range of blocks."""
    return name.split("@")[0] not in _NOT_SINGLE and not any(sign in name for sign in "+~:")


def measurable(names):
    """The names of the measurable components that components are, or are ranges of blocks of, without repetition."""
    return list(dict.fromkeys(parse(name).base.name for name in names if parse(name).base))


def _term(name, text):
    """(id, blocks) of one term of a name."""
    match = _TERM.fullmatch(text)
    id, first, last = match.groups() if match else (text, None, None)
    if id not in LABELS:
        close = difflib.get_close_matches(id.lower(), LABELS, n=1)
        ids = [*MEASURABLE, "embed", *ALONE]
        raise ValueError(
            f"unknown component {id!r}; choose from {', '.join(ids)}, {', '.join(i for i in LABELS if i not in ids)}, "
            "a range of blocks such as mha@0-5 or mha@11, a sum such as mha+fc1, adapters such as lora8:mha, a mask "
            "such as mha~1536, or what a predictor puts first, such as auto:plasticity:2"
            f"{f'; did you mean {close[0]}?' if close else ''}"
        )
    if first is None:
        return id, None
    if id not in IN_BLOCKS:
        raise ValueError(f"component {name!r}: {id} is not in blocks; ranges are of {', '.join(IN_BLOCKS)}")
    blocks = tuple(range(int(first), int(last or first) + 1))
    if not blocks:
        raise ValueError(f"component {name!r}: a range of blocks goes up, such as {id}@{int(last)}-{int(first)}")
    return id, blocks


def _canonical(terms):
    """The terms, in order, that name the set of parameters of any `terms`."""
    found = {}  # id → its blocks, a set, or None for all
    for id, blocks in terms:
        for part in WHOLES.get(id, (id,)):
            known = found.get(part, set())
            found[part] = None if blocks is None or known is None else known | set(blocks)
    everywhere = all(found.get(part, ()) is None for part in _PARTS_OF_BLOCKS)
    if everywhere and "embed" in found:
        return (("full", None),)
    if found.get("bias"):  # those of blocks that train wholly are named already
        named = [found.get(part, set()) for part in _PARTS_OF_BLOCKS]
        found["bias"] = {b for b in found["bias"] if not all(blocks is None or b in blocks for blocks in named)}
    for whole, (one, other) in WHOLES.items():
        if one in found and other in found and found[one] == found[other]:
            found[whole] = found.pop(one)
            del found[other]
    return tuple((id, blocks) for id in LABELS if id in found for blocks in _runs(found[id]))


def _runs(blocks):
    """Tuples of consecutive indices that make up a set of blocks; None alone for all."""
    if blocks is None:
        return [None]
    starts = sorted(b for b in blocks if b - 1 not in blocks)
    ends = sorted(b for b in blocks if b + 1 not in blocks)
    return [tuple(range(a, b + 1)) for a, b in zip(starts, ends, strict=True)]


def _adapted(rank):
    return "" if rank is None else f"lora{rank}:"


def _masked(size, sign="~"):
    return "" if size is None else f"{sign}{size}"


def _written(id, blocks, sign="@"):
    if blocks is None:
        return id
    return f"{id}{sign}{blocks[0]}" + (f"-{blocks[-1]}" if len(blocks) > 1 else "")
