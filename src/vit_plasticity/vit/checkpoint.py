"""A checkpoint as training scripts leave it, read into an architecture of timm. Nothing of it is ever executed."""

import pickle

import safetensors
import safetensors.torch
import timm
import torch

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import transformers_format

WRAPPINGS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which scripts keep the weights, averaged ones first."""
PREFIXES = ("module.", "_orig_mod.")
IN_A_FOLDER = ("model.safetensors", "pytorch_model.bin")


def model_of(tag, file):
    """The model of a timm tag with the weights in a file (.safetensors, or a pickle of tensors), in float32.

    Tensors may have the names of timm or of transformers. Of a folder, the file of `IN_A_FOLDER` is taken. The head has
    as many outputs as the weights, or is left out where they have none.
    Raises InputError for a file that holds anything but tensors, and for weights that are not the architecture's.
    """
    if file.is_dir():
        held = [file / name for name in IN_A_FOLDER if (file / name).is_file()]
        if not held:
            raise InputError(f"the folder {file} holds neither {' nor '.join(IN_A_FOLDER)}; give the file itself")
        file = held[0]
    weights = {_stripped(name): tensor.float() for name, tensor in _read(file).items()}
    if transformers_format.names(weights):
        weights, _ = transformers_format.renamed(weights)
    classes = len(weights["head.weight"]) if "head.weight" in weights else 0
    model = timm.create_model(tag, pretrained=False, num_classes=classes)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{file} does not hold the weights of {tag}: {error}. Rename its tensors as timm does"
        ) from error
    model.pretrained_cfg["num_classes"] = classes
    return model


def _read(file):
    """Name → tensor."""
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{file} cannot be read as tensors alone ({str(error).splitlines()[0]}). Where it was made, write "
            "safetensors.torch.save_file(model.state_dict(), 'model.safetensors'), then give that file"
        ) from error
    while isinstance(found, dict) and (inner := next((k for k in WRAPPINGS if isinstance(found.get(k), dict)), None)):
        found = found[inner]
    if not isinstance(found, dict) or not found or not all(torch.is_tensor(value) for value in found.values()):
        raise InputError(f"{file} holds no tensors by name, nor under {', '.join(WRAPPINGS)}; save model.state_dict()")
    return found


def _stripped(name):
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name
