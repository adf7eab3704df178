"""Fetching a model: weights of timm from the Hugging Face hub, a folder in timm's local-directory format, or a model
that comes with this package.

In each case the weights are loaded into the architecture, strictly, before the folder appears: nothing is ever filled
in at random, unless an untrained model is asked for. Only safetensors are taken, never pickles.
"""

import difflib
import hashlib
import json
import shutil
from pathlib import Path

import timm
import torch
from huggingface_hub import hf_hub_download
from timm.models._hub import save_for_hf

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.folders import new_folder
from vit_plasticity.vit import checkpoint as checkpoints
from vit_plasticity.vit import families
from vit_plasticity.vit.folder import CONFIG, PROVENANCE, WEIGHTS, change, load, write_provenance
from vit_plasticity.vit.preprocess import preprocessing

FILES = (CONFIG, WEIGHTS)
SHIPPED = Path(__file__).with_name("shipped")
"""The folder of the models that come with the package, one folder each, with provenance."""
_FORMS = '{"timm": "vit_base_patch16_224.orig_in21k"}, {"local": "/path/to/folder"}, {"shipped": "vit_mini"} or '
_FORMS += '{"random": "vit_base_patch16_224"}'
_ORIGINS = {"timm", "local", "shipped", "random"}


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
            origin = _from_hub(value, folder, source)
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
    if missing := [name for name in FILES if not (given / name).is_file()]:
        raise InputError(
            f"{given} has no {' and no '.join(missing)}: a model folder holds {' and '.join(FILES)}, as written by "
            "timm.models.save_for_hf(model, folder, safe_serialization=True)"
        )
    for name in FILES:
        shutil.copyfile(given / name, folder / name)
    return f"folder {given.resolve()}"


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
        close = difflib.get_close_matches(tag.split(".")[0], timm.list_models("*vit*") + timm.list_models("deit*"), n=4)
        raise InputError(f"timm {timm.__version__} has no model {tag!r}; close names: {', '.join(close) or 'none'}")


def _check_architecture(tag):
    """Raise InputError, before any weights are had, unless the model of a tag can be studied."""
    with torch.device("meta"):
        model = timm.create_model(tag, pretrained=False)
    families.check(model, tag)
    preprocessing(model)


def _from_hub(tag, folder, source):
    repository = _repository(tag)
    for name in FILES:
        shutil.copyfile(_hub_file(repository, name, source), folder / name)
    return f"Hugging Face hub {repository}"


def _repository(tag):
    """The hub repository of a timm tag, after a check, without weights, that its model is in the family."""
    try:
        config = timm.get_pretrained_cfg(tag)
    except RuntimeError:  # a model without weights of that tag
        config = None
    if config is None or not config.hf_hub_id:
        close = difflib.get_close_matches(tag, timm.list_pretrained("*vit*") + timm.list_pretrained("deit*"), n=4)
        raise InputError(
            f"timm {timm.__version__} has no weights {tag!r} on the hub; close names: {', '.join(close) or 'none'}"
        )
    _check_architecture(tag)
    return config.hf_hub_id


def _hub_file(repository, name, source):
    """The path of one file of a hub repository: in the mirror folder, or in the hub's own cache after a download."""
    if source.mirror and "://" not in source.mirror:
        path = Path(source.mirror, repository, name)
        if not path.is_file():
            raise InputError(f"the mirror has no {path}; {_how_to_get(repository)}")
        return path
    try:
        path = Path(hf_hub_download(repository, name, endpoint=source.mirror, local_files_only=source.offline))
    except Exception as error:  # the client passes on whatever its transport raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name} of {repository} cannot be had from the hub: {reason} {_how_to_get(repository)}"
        ) from error
    _verify(path.resolve(), repository)
    return path


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
    return f"Put {files} of that repository into FOLDER/{repository}/ and use --mirror FOLDER, or use {{local: folder}}"
