"""Low-rank adapters (LoRA) on the linear layers of a model, by peft, which is imported only where there are some.

A layer W becomes W + 2 B A, with A (rank, D) random and B (E, rank) zero, so that the model starts as it was.
"""

import math
import re

import torch

from vit_plasticity.vit.families import family

ALPHA_PER_RANK = 2
_FIRST = "lora_A.default.weight"


def add(model, layers, rank):
    """Put adapters of a rank on the linear layers of these names, in place. The draw is the same on every device."""
    from peft import LoraConfig, inject_adapter_in_model

    family(model).call_linears(model)
    config = LoraConfig(r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules=list(layers))
    with torch.random.fork_rng(devices=[]):  # peft draws numbers of its own
        inject_adapter_in_model(config, model)
    random = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith(_FIRST):
            bound = 1 / math.sqrt(parameter.shape[1])
            with torch.no_grad():
                parameter.copy_(torch.rand(parameter.shape, generator=random) * (2 * bound) - bound)


def add_for(model, tensors):
    """Put on the adapters that some named tensors belong to, if any; their values are not taken over."""
    ranks = {name.removesuffix(f".{_FIRST}"): len(t) for name, t in tensors.items() if name.endswith(_FIRST)}
    if ranks:
        add(model, ranks, max(ranks.values()))


def remove(model):
    """Take all adapters off, in place: the linear layers are again what they were."""
    if not hasattr(model, "peft_config"):
        return
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer"):
            model.set_submodule(name, module.base_layer)
    del model.peft_config


def names(model):
    """Name of a parameter of an adapter → name of its layer."""
    found = {name: re.split(r"\.lora_[AB]\.", name) for name, _ in model.named_parameters()}
    return {name: layer for name, (layer, *rest) in found.items() if rest}
