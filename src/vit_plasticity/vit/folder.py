"""A model on disk: a folder in timm's local-directory format, with a note of where it comes from."""

import hashlib
import json
from pathlib import Path

import safetensors
import timm
from timm.models._hub import save_for_hf

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import families
from vit_plasticity.vit.model import prepare
from vit_plasticity.vit.preprocess import preprocessing

WEIGHTS, CONFIG, PROVENANCE = "model.safetensors", "config.json", "provenance.json"


def load(folder, device="cpu"):
    """The model in a folder of timm's local-directory format, in evaluation mode, on `device`.

    Raises InputError if the folder lacks a file, the weights do not fit the architecture, or the model belongs to no
    family that this project knows. Missing weights never become random ones.
    """
    folder = Path(folder).resolve()
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} has no {name}: a model folder needs {CONFIG} and {WEIGHTS}, as timm saves them. "
                "Fetch the model again, or give it as `local: FOLDER` in catalog.models."
            )
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (RuntimeError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder}: weights and architecture do not fit: {error}") from error
    families.check(model, folder.name)
    _check_tensors(model, folder / WEIGHTS)
    preprocessing(model)
    return prepare(model.to(device)).eval()


def _check_tensors(model, file):
    """Raise InputError unless the names and shapes of a file of weights are the model's own.

    timm resamples weights of another size, and leaves the classifier out where its configuration is of two minds. Files
    in a format that it converts, of which it compares the names itself, are left to it.
    """
    said = model.pretrained_cfg.get("num_classes", model.num_classes)
    if said != model.num_classes:
        raise InputError(
            f"{file}: config.json says num_classes {said}, the architecture has {model.num_classes}, and timm would "
            "leave the classifier out; write that of the weights into num_classes, pretrained_cfg and model_args"
        )
    with safetensors.safe_open(file, "pt") as weights:
        given = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if len(given.keys() & own.keys()) <= len(own) / 2:
        return
    if missing := own.keys() - given.keys():
        raise InputError(f"{file} lacks {len(missing)} tensors of the architecture, such as {min(missing)}")
    if unknown := given.keys() - own.keys():
        raise InputError(f"{file} has {len(unknown)} tensors that the architecture lacks, such as {min(unknown)}")
    for name, shape in own.items():
        if given[name] != shape:
            raise InputError(
                f"{file}: {name} has shape {given[name]}, and the architecture's is {shape}; weights are not "
                "resampled. Correct model_args and num_classes in config.json, or save the model again at the "
                "size that you want"
            )


def save(model, folder, source):
    """Write `model`, made by timm.create_model, into `folder`, with a note of its `source` and its fingerprint."""
    folder = Path(folder)
    save_for_hf(model, folder, safe_serialization=True)
    write_provenance(folder, source)


def write_provenance(folder, source):
    """Record in a model folder where it comes from and the SHA-256 of its weights."""
    with (folder / WEIGHTS).open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    note = {"format": 1, "source": source, "fingerprint": fingerprint}
    text = json.dumps(note, indent=2, sort_keys=True) + "\n"
    (folder / PROVENANCE).write_text(text, encoding="utf-8")


def fingerprint(folder):
    """SHA-256 of the weights in a model folder, as recorded when it was made. Raises InputError where none was."""
    try:
        return json.loads((Path(folder) / PROVENANCE).read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} has no readable {PROVENANCE}; fetch the model again") from error
