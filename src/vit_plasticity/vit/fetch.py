"""Fetching a model: weights of timm from the Hugging Face hub, another repository of the hub or a folder, in the
format of timm or of transformers, or a model that comes with this package.

In each case the weights are loaded into the architecture, strictly, before the folder appears: nothing is ever filled
in at random, unless an untrained model is asked for. Only safetensors are taken, never pickles.
"""

import difflib
import hashlib
import json
import re
import shutil
from pathlib import Path

import safetensors
import safetensors.torch
import timm
import torch
from huggingface_hub import constants, hf_hub_download
from timm.models._hub import save_for_hf

from vit_plasticity.runtime.cli import NO_ROOM, InputError
from vit_plasticity.runtime.folders import new_folder
from vit_plasticity.vit import checkpoint as checkpoints
from vit_plasticity.vit import families, transformers_format
from vit_plasticity.vit.folder import CONFIG, PROVENANCE, WEIGHTS, change, load, write_provenance
from vit_plasticity.vit.preprocess import preprocessing

FILES = (CONFIG, WEIGHTS)
SHIPPED = Path(__file__).with_name("shipped")
"""The folder of the models that come with the package, one folder each, with provenance."""
_FORMS = '{"timm": "vit_base_patch16_224.orig_in21k"}, {"local": "/path/to/folder"}, {"shipped": "vit_mini"} or '
_FORMS += '{"random": "vit_base_patch16_224"}'
_ORIGINS = {"timm", "local", "shipped", "random"}
_OTHER_WEIGHTS = (
    "Where there is pytorch_model.bin alone, turn it into such a folder: python -m vit_plasticity.fetch model NAME "
    "--catalog '{\"timm\": TAG OF THE ARCHITECTURE}' --from pytorch_model.bin --output FOLDER"
)


def fetch_model(name, entry, output, source, checkpoint=None):
    """Put the model that a catalog entry names into the folder `output`; `source` is a `downloads.Source`.

    entry: one of timm, local, shipped, random, and beside it what its images are to be like (see `folder.change`).
    checkpoint: a file with weights for the architecture of {"timm": TAG}, which are taken instead of the hub's.

    Raises InputError for an entry of another form, a model that timm does not know or that is outside the family,
    weights that cannot be had or do not fit.
    """
    if not isinstance(entry, dict) or len(entry.keys() & _ORIGINS) != 1:
        raise InputError(f"catalog.models.{name}: got {entry!r}; fetch takes {_FORMS}")
    with new_folder(output, PROVENANCE) as folder:
        if folder is None:
            return
        changes = dict(entry)
        (kind,) = entry.keys() & _ORIGINS
        value = changes.pop(kind)
        if not isinstance(value, str) or not value:
            raise InputError(f"catalog.models.{name}: {kind} must be a text, got {value!r}")
        if checkpoint and kind != "timm":
            raise InputError(f"--from goes with --catalog '{{\"timm\": TAG}}', the architecture; got {entry!r}")
        if checkpoint:
            _known(value)
            _check_architecture(value)
            save_for_hf(checkpoints.model_of(value, Path(checkpoint)), folder, safe_serialization=True)
            origin = f"checkpoint {Path(checkpoint).resolve()} as {value}"
        elif kind == "timm":
            repository = _repository(value)
            found = _copied(lambda file: _hub_file(repository, file, source), folder)
            origin = f"Hugging Face hub {repository}{found}"
        elif kind == "local":
            origin = _from_folder(Path(value).expanduser(), folder)
        elif kind == "random":
            origin = _untrained(value, folder)
        else:
            origin = _from_package(value, folder)
        try:
            load(folder)
            if changes:
                change(folder, **changes)
                origin = {"origin": origin, "changed": changes}
        except InputError as error:
            raise InputError(
                f"model {name} ({kind}: {value}): {str(error).replace(str(folder), 'the folder')}"
            ) from error
        write_provenance(folder, origin)


def _from_folder(given, folder):
    def find(file):
        if not (given / file).is_file():
            raise InputError(
                f"{given} has no {' and no '.join(missing) or file}: a model folder holds {' and '.join(FILES)}, as "
                "written by timm.models.save_for_hf(model, folder, safe_serialization=True), or these and "
                f"{transformers_format.PROCESSOR}, as written by save_pretrained of a model and of an image processor "
                f"of transformers. {_OTHER_WEIGHTS}"
            )
        return given / file

    missing = [name for name in FILES if not (given / name).is_file()]
    return f"folder {given.resolve()}{_copied(find, folder)}"


def _copied(find, folder):
    """Put a model into a folder, in timm's format, and return what there is to say of how: "" for a plain copy.

    find: a function from the name of a file to its path; weights are asked for last, when all else is known to do.
    """
    config = _json(find(CONFIG))
    if not transformers_format.describes(config):
        _check_described(config)
        for name in FILES:
            shutil.copyfile(find(name), folder / name)
        return ""
    with torch.device("meta"):
        plan = transformers_format.architecture(config)
    families.check(plan, config["model_type"])
    data_config = transformers_format.images(_json(find(transformers_format.PROCESSOR)), plan.patch_embed.img_size)
    weights = find(WEIGHTS)
    try:
        tensors, unused = transformers_format.renamed(safetensors.torch.load_file(weights))
        model = transformers_format.architecture(config, tensors)
        model.load_state_dict(tensors)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise InputError(f"{weights}: weights and architecture do not fit: {error}") from error
    save_for_hf(model, folder, safe_serialization=True, data_config=data_config)
    return f" in the format of transformers{', without ' + ', '.join(unused) if unused else ''}"


def _check_described(config):
    """Raise InputError, before any weights are had, unless a ``config.json`` of timm describes what can be studied."""
    name = config.get("architecture") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise InputError(f"{CONFIG} names neither an architecture, as timm's does, nor a model_type, as transformers'")
    _known(name)
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, **config.get("model_args", {}))
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"{CONFIG}: {name} cannot be made with its model_args: {error}") from error
    families.check(model, name)


def _json(file):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error


def _from_package(name, folder):
    """Copy a shipped model; its weights must have the fingerprint with which it was shipped."""
    names = sorted(path.parent.name for path in SHIPPED.glob(f"*/{PROVENANCE}"))
    if name not in names:
        raise InputError(f"no model {name!r} comes with this package; choose from {', '.join(names)}")
    _from_folder(SHIPPED / name, folder)
    note = json.loads((SHIPPED / name / PROVENANCE).read_text(encoding="utf-8"))
    with (folder / WEIGHTS).open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != note["fingerprint"]:
        raise InputError(
            f"the shipped weights of {name} are damaged: their SHA-256 is {found}, not {note['fingerprint']}; "
            "install the package again"
        )
    return {"shipped": name} | note["source"]


def _untrained(tag, folder):
    """Save the architecture of a timm tag as it is before training, the same each time."""
    _known(tag)
    _check_architecture(tag)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_for_hf(timm.create_model(tag, pretrained=False), folder, safe_serialization=True)
    return f"untrained {tag}, seed 0"


def _known(tag):
    """Raise InputError unless timm has an architecture of a tag."""
    if not timm.is_model(tag):
        close = difflib.get_close_matches(tag.split(".")[0], timm.list_models(["*vit*", "deit*", "eva*", "beit*"]), n=4)
        raise InputError(f"timm {timm.__version__} has no model {tag!r}; close names: {', '.join(close) or 'none'}")


def _check_architecture(tag):
    """Raise InputError, before any weights are had, unless the model of a tag can be studied."""
    with torch.device("meta"):
        model = timm.create_model(tag, pretrained=False)
    families.check(model, tag)
    preprocessing(model)


def _repository(name):
    """The hub repository of a timm tag, after a check, without weights, that its model is in the family; of
    ORGANISATION/NAME that repository itself."""
    tag = re.sub(r"^(?:hf[-_]hub:)?(?:timm/)?", "", name)
    if "/" in tag:
        return tag
    try:
        config = timm.get_pretrained_cfg(tag)
    except RuntimeError:  # a model without weights of that tag
        config = None
    if config is None or not config.hf_hub_id:
        close = difflib.get_close_matches(tag, timm.list_pretrained("*vit*") + timm.list_pretrained("deit*"), n=4)
        raise InputError(
            f"timm {timm.__version__} has no weights {tag!r} on the hub; close names: {', '.join(close) or 'none'}. "
            "A repository of another organisation is named ORGANISATION/NAME"
        )
    _check_architecture(tag)
    return config.hf_hub_id


def _hub_file(repository, name, source):
    """The path of one file of a hub repository: in the mirror folder, or, downloaded, in the downloads folder."""
    if source.mirror and "://" not in source.mirror:
        path = Path(source.mirror, repository, name)
        if not path.is_file():
            raise InputError(f"the mirror has no {path}; {_how_to_get(repository)}")
        return path
    # Xet would write below HOME, and give large files other names than their SHA-256.
    constants.HF_HUB_DISABLE_XET = True
    cache, offline = Path(source.folder, "hub").absolute(), source.offline
    try:
        path = hf_hub_download(repository, name, endpoint=source.mirror, local_files_only=offline, cache_dir=cache)
    except Exception as error:  # the client passes on whatever its transport raises
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name} of {repository} cannot be had from the hub: {reason} {_how_to_get(repository)}"
        ) from error
    _verify(Path(path).resolve(), repository)
    return Path(path)


def _verify(path, repository):
    """Large files lie in the hub's cache under their own SHA-256; raise InputError if the content is another."""
    if len(path.name) == 64:
        with path.open("rb") as data:
            found = hashlib.file_digest(data, "sha256").hexdigest()
        if found != path.name:
            raise InputError(
                f"{path} (of {repository}) is damaged: its SHA-256 is {found}; remove it to fetch it again"
            )


def _how_to_get(repository):
    files = " and ".join(FILES)
    how = f"Put {files} of that repository into FOLDER/{repository}/ and use --mirror FOLDER, or use {{local: folder}}"
    return how if repository.startswith("timm/") else f"{how}. {_OTHER_WEIGHTS}"
