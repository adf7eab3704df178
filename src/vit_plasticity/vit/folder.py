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
    return prepare(model.to(device)).eval()


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
