"""Families of models: what differs between architectures, one file each, and the only place that knows timm's names.

A file of this folder defines `FAMILY`, an object with the methods of `Family`; no list of families exists elsewhere.
Dimensions: B images, S pixels a side, L tokens (class and register tokens first), D embedding width, K classes.
"""

import functools
import importlib
import pkgutil
from typing import NamedTuple, Protocol

import torch

from vit_plasticity.runtime.cli import InputError


class Attention(NamedTuple):
    """Weights of a plain softmax attention of H heads of width W.

    query, key, value: (H · W, D), heads one after the other along the rows; output: (D, H · W), heads along columns.
    query_bias: (H · W,), or None.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    heads: int
    query_bias: torch.Tensor | None = None


class Family(Protocol):
    """What the project asks of a family of models."""

    name: str
    """Of the class of its models, as users read it in messages."""

    def owns(self, model):
        """Whether `model` is of this family's class."""

    def check(self, model, name):
        """Raise InputError, calling the model `name`, for a model of the class whose parts are not those known here."""

    def blocks(self, model):
        """The blocks, in their order."""

    def parts(self, block, id):
        """The modules of a block that are one of ln1, mha, ln2, fc1, fc2: one, but for the two of SwiGLU's fc1. All
        read the same tokens, and what the component gives is their outputs side by side."""

    def apply(self, model, block, id, tokens):
        """What a component of a block gives for tokens (N, L, its input width), called as the model calls it."""

    def attention(self, block):
        """The Attention of a block, or None where it is not plain: query and key norms, gates, a scaled norm, positions
        that enter it."""

    def heads(self, model, block, tokens):
        """What the block's attention feeds to its output projection: (N, L, D) → (N, L, H · W)."""

    def projection(self, block):
        """The Linear module of the attention's output projection."""

    def embedding(self, model):
        """Modules and parameters of the embedding: patches, class and register tokens, positions that are added."""

    def head(self, model):
        """Modules that always train: the head and the final norms. What pools by attention stays frozen."""

    def new_head(self, model, n_classes):
        """Replace the classifiers by zero ones of `n_classes` outputs."""

    def width(self, model):
        """D."""

    def n_tokens(self, model):
        """(number of class and register tokens, L)."""

    def embed(self, model, images):
        """Images (B, 3, S, S), already normalised → the tokens that enter the first block (B, L, D)."""

    def inputs(self, model, tokens):
        """For each block, what its parts really receive, {"ln1": (B, L, D), …}, given the tokens of `embed`."""

    def after_blocks(self, model, tokens):
        """Tokens of `embed` → tokens after the last block (B, L, D)."""

    def pre_logits(self, model, images):
        """What the classifier reads: (B, D)."""

    def classifiers(self, model):
        """The Linear modules that each turn `pre_logits` into logits; where there are several, the model's are their
        mean, and all start alike."""

    def logits(self, model, images, *, recompute=False):
        """Class logits (B, K), equal to ``model(images)``."""

    def prepare(self, model):
        """Choose, by device and number of tokens, how attention is computed, and `call_linears`. Numbers differ by
        rounding alone."""

    def call_linears(self, model):
        """Let every Linear layer be called as a module, as adapters need it; some models only read its weight."""

    def lines_before_adapters(self, model):
        """Lines of Python that do what `call_linears` does to a plain `model` of timm: none for most."""


@functools.cache
def families():
    """Every family, by the name of its file."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return {name: importlib.import_module(f"{__name__}.{name}").FAMILY for name in names}


def family(model):
    """The Family of a model. Raises InputError, naming the families, where it has none."""
    for candidate in families().values():
        if candidate.owns(model):
            return candidate
    raise InputError(f"a {type(model).__name__} cannot be studied; {what_can_be_studied()}")


def check(model, name):
    """Raise InputError unless `model`, called `name` in the message, belongs wholly to one of the families."""
    for candidate in families().values():
        if candidate.owns(model):
            return candidate.check(model, name)
    raise InputError(f"model {name!r} is a {type(model).__name__}; {what_can_be_studied()}")


def what_can_be_studied():
    return f"what can be studied is {'; or '.join(candidate.name for candidate in families().values())}"
