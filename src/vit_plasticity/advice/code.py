"""The lines of Python that make a recommended choice train: a loop over parameters for timm, a LoraConfig for PEFT."""

import json
import re
from fnmatch import fnmatchcase


def create_line(model, n_classes):
    """The line that makes the model: `model` is a tag of timm, or a folder in timm's local-directory format."""
    return f"model = timm.create_model({json.dumps(model)}, pretrained=True, num_classes={n_classes})"


def training_lines(create, names, every_name):
    """Lines after which exactly the parameters `names` train, of a model whose parameters are `every_name`.

    create: the line that makes the model. Parameters that repeat in every block are written as one pattern.
    """
    patterns = _patterns(names, every_name)
    return [
        "from fnmatch import fnmatchcase",
        "",
        "import timm",
        "",
        create,
        "trained = [",
        *(f"    {json.dumps(pattern)}," for pattern in patterns),
        "]",
        "for name, parameter in model.named_parameters():",
        "    parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in trained))",
    ]


def lora_lines(create, rank, alpha, modules, saved):
    """Lines that add low-rank adapters of `rank` to the linear layers `modules`, and train the modules `saved` fully.

    create: the lines that make the model, ready for adapters. modules: the names of the linear layers, the same in each
    of the blocks that they are in.
    """
    short, blocks = {}, set()
    for name in modules:
        if match := re.fullmatch(r"blocks\.(\d+)\.(.*)", name):
            blocks.add(match[1])
            short[match[2]] = None
    targets = rf"blocks\.({'|'.join(sorted(blocks, key=int))})\.({'|'.join(map(re.escape, short))})"
    return [
        "import timm",
        "from peft import LoraConfig, get_peft_model",
        "",
        *create,
        "config = LoraConfig(",
        f"    r={rank},",
        f"    lora_alpha={alpha:g},",
        f'    target_modules=r"{targets}",',
        f"    modules_to_save={json.dumps(list(saved))},",
        ")",
        "model = get_peft_model(model, config)",
    ]


def _patterns(names, every_name):
    """Patterns for fnmatch that match `names` and no other: with "*" for the block where all blocks are alike."""
    short = list(dict.fromkeys(re.sub(r"^blocks\.\d+\.", "blocks.*.", name) for name in names))
    matched = [name for name in every_name if any(fnmatchcase(name, pattern) for pattern in short)]
    return short if set(matched) == set(names) else list(names)
