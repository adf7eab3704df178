"""What can be fine-tuned: the parameters that each choice trains, its memory, and its lines of Python."""

import copy
import dataclasses

from vit_plasticity import vit
from vit_plasticity.advice import code, memory
from vit_plasticity.analysis.judgement import is_single
from vit_plasticity.vit.adapters import ALPHA_PER_RANK
from vit_plasticity.vit.components import parse
from vit_plasticity.vit.selection import linear_layers

NAMES = (
    "mha", "fc1", "fc2", "ln2", "ln1", "qkv", "proj", "ffn", "norm", "bias", "mha+fc1", "lora8:mha", "embed", "full",
    "head",
)  # fmt: skip
"""The components that are looked at where none are named."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """One component of a model with a head for its classes.

    names: of the parameters that train, head and final norm among them. n_own: how many values without these; n_all: of
    the whole model. memory_bytes: see `memory.estimate`. lines: Python that makes exactly `names` train, of adapters
    by the names that peft gives them.
    """

    component: str
    names: tuple[str, ...]
    n_trained: int
    n_own: int
    n_all: int
    memory_bytes: int
    lines: tuple[str, ...]

    @property
    def single(self):
        """Whether the record speaks of it: it trains one component of every block, and nothing else but the head."""
        return is_single(self.component)


def describe(model, component, created_as, batch_size):
    """The Choice of a component. model: with the head of its classes; it is left as it was.

    created_as: what timm.create_model takes, a tag or ``local-dir:FOLDER``.
    """
    changed = copy.deepcopy(model)
    names = vit.train_only(changed, component)
    sizes = {name: parameter.numel() for name, parameter in changed.named_parameters()}
    of_head = {id(p) for part in vit.family(changed).head(changed) for p in part.parameters()}
    own = [p.numel() for p in changed.parameters() if p.requires_grad and id(p) not in of_head]
    return Choice(
        component=component,
        names=tuple(names),
        n_trained=sum(sizes[name] for name in names),
        n_own=sum(own),
        n_all=sum(p.numel() for p in model.parameters()),
        memory_bytes=memory.estimate(changed, component, batch_size),
        lines=tuple(_lines(model, component, names, code.create_line(created_as, model.num_classes))),
    )


def _lines(model, component, names, create):
    chosen = parse(component)
    if chosen.rank is None:
        return code.training_lines(create, names, [name for name, _ in model.named_parameters()])
    heads = {id(part) for part in vit.family(model).head(model)}
    saved = [name for name, part in model.named_modules() if id(part) in heads and any(True for _ in part.parameters())]
    alpha = ALPHA_PER_RANK * chosen.rank
    before = vit.family(model).lines_before_adapters(model)
    return code.lora_lines([create, *before], chosen.rank, alpha, linear_layers(model, chosen), saved)
