"""A model on disk: a folder in timm's local-directory format, with a note of where it comes from."""

import hashlib
import json
from pathlib import Path

import safetensors
import timm
from timm.models._hub import save_for_hf
from torch.overrides import TorchFunctionMode

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
    model = _build(folder)
    families.check(model, folder.name)
    _check_tensors(model, folder / WEIGHTS)
    preprocessing(model)
    return prepare(model.to(device)).eval()


class _Undrawn(TorchFunctionMode):
    """Within it, what is to be filled with random numbers stays as it is: to draw weights that are then replaced takes
    longer than to read those that replace them."""

    drawing = frozenset({"uniform_", "normal_", "erfinv_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_"})

    def __torch_function__(self, function, types, args=(), kwargs=None):
        given = kwargs or {}
        if getattr(function, "__name__", "") in self.drawing:
            return args[0] if args else given["tensor"]
        return function(*args, **given)


def _build(folder):
    try:
        with _Undrawn():
            return timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (RuntimeError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder}: weights and architecture do not fit: {error}") from error


def change(folder, image_size=None, mean=None, std=None, interpolation=None, crop_share=None):
    """Write a model folder that `load` takes anew, for images of another size or another preprocessing.

    image_size: side in pixels; positions are resampled, as timm does. mean, std: of the pixels, per channel, in [0, 1].
    interpolation: bilinear or bicubic. crop_share: in (0, 1], of the resized image's side. Raises InputError for a size
    that the patches do not divide, and for a model whose size is fixed.
    """
    model, given = _build(folder), {}
    if image_size is not None:
        patch = model.patch_embed.patch_size[0]
        if image_size % patch:
            raise InputError(f"image_size {image_size} is no multiple of the model's patches of {patch} pixels")
        if not hasattr(model, "set_input_size"):
            raise InputError(f"image_size: a {type(model).__name__} keeps the size that it was made for")
        model.set_input_size(img_size=(image_size, image_size))
        given["input_size"] = (3, image_size, image_size)
    images = {"mean": mean, "std": std, "interpolation": interpolation, "crop_pct": crop_share}
    given |= {key: value for key, value in images.items() if value is not None}
    save_for_hf(model, folder, safe_serialization=True, data_config=given)
    preprocessing(_build(folder))


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
    """SHA-256 of what a model folder holds: weights, by the record of when it was made, and their configuration, the
    preprocessing too. Raises InputError where no record is."""
    try:
        weights = json.loads((Path(folder) / PROVENANCE).read_text(encoding="utf-8"))["fingerprint"]
        about = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} has no readable {PROVENANCE} and {CONFIG}; fetch the model again") from error
    return hashlib.sha256(f"{weights} {json.dumps(about, sort_keys=True)}".encode()).hexdigest()
