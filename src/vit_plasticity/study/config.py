"""A study: a configuration, checked as a whole, and the cells that it stands for.

Neither torch nor pandas is imported here: this module runs each time that the workflow is parsed.
"""

import itertools
import json
import re
import types
from pathlib import Path

from vit_plasticity import predictors
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import schema
from vit_plasticity.study.grid import candidates
from vit_plasticity.vit import components


def resolve(config):
    """The configuration with every default filled in.

    Raises InputError that lists all problems at once: each with the path of its key, what was got, what is allowed.
    """
    problems = [*schema.problems(config, schema.load())]
    if not problems:
        config = schema.with_defaults(config, schema.load())
        problems = [*_meaning_problems(config)]
    schema.refuse(problems, "the configuration")
    return config


class Settings(types.SimpleNamespace):
    """The settings of a stage as attributes, which cannot be set; lists are tuples."""

    def __setattr__(self, name, value):
        raise AttributeError(f"settings do not change; {name} cannot be set")

    def as_dict(self):
        """The settings as a new dict of JSON values (lists are tuples)."""
        return dict(vars(self))


def settings(section, json_text="{}"):
    """The settings of a stage from a JSON object, checked against its section of the schema; what the object leaves out
    takes the schema's default.

    Raises InputError in the words in which the workflow refuses the same settings.
    """
    try:
        given = json.loads(json_text)
    except json.JSONDecodeError as error:
        raise InputError(f"--params is not JSON ({error}): {json_text!r}") from error
    if not isinstance(given, dict):
        raise InputError(f"--params must be a JSON object, got {json_text!r}")
    part = schema.section(section)
    problems = [*schema.problems(given, part, [section])]
    if not problems:
        given = schema.with_defaults(given, part)
        problems = [*_section_problems(given, section)]
    schema.refuse(problems, "--params")
    return Settings(**{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})


def grid(config):
    """What names the files of a study (see `grid.files`), as a dict of JSON values."""
    lists = {key: config[key] for key in ("models", "datasets", "components", "seeds")}
    return lists | {
        "plasticity_models": config["plasticity"].get("models", config["models"]),
        "predictors": [name for name in config["predictors"] if name != "plasticity"],  # which has a stage of its own
        "evaluate_on": evaluated_on(config),
    }


def fine_tunes(names):
    """Whether one of these predictors fine-tunes a little."""
    return any(predictors.known()[name] for name in names)


def check_model_entry(name, entry):
    """Raise InputError for an entry of catalog.models that the workflow would refuse."""
    part = schema.load()["properties"]["catalog"]["properties"]["models"]["additionalProperties"]
    path = f"catalog.models.{name}"
    found = [*schema.problems(entry, part | {"$defs": schema.load()["$defs"]}, path.split("."))]
    schema.refuse(found or [*_model_entry_problems(entry, path)], "--catalog")


def evaluated_on(config):
    """Dataset that cells were trained on → the datasets that they are also evaluated on, without repetition."""
    targets = {}
    for entry in config["evaluate_on"]:
        named = targets.setdefault(entry["trained_on"], [])
        named += [name for name in entry["tested_on"] if name not in named]
    return targets


def stage_settings(config, stage, *names):
    """The section of a stage with the overrides for `names` (a dataset, then a model) applied, as a dict."""
    settings = dict(config[stage])
    for name in names:
        settings |= config["overrides"].get(name, {}).get(stage, {})
    return settings


def pretrain_settings(config, model):
    """The section `pretrain` with what the catalog says of a model that is pre-trained here."""
    own = {key: v for key, v in config["catalog"]["models"][model]["pretrain"].items() if key != "dataset"}
    return config["pretrain"] | own


def json_text(value):
    """JSON with sorted keys: the one form in which settings are passed to a stage, and compared."""
    return json.dumps(value, sort_keys=True)


def _meaning_problems(config):
    """Problems that no schema can see: names that stand for nothing, and values that do not fit together."""
    catalog = config["catalog"]
    models = catalog["models"]
    unknown = [*_component_problems(config)]
    yield from unknown or _adaptive_problems(config)
    for i, name in enumerate(config["predictors"]):
        if name not in predictors.names():
            yield f"predictors[{i}]: unknown predictor {name!r}; {schema.suggest(name, predictors.names())}"
    if "bound_holding" in config["predictors"] and config["measure"]["images"] < config["plasticity"]["pairs"]:
        yield (
            f"measure.images: got {config['measure']['images']}; bound_holding must hold for the images of all "
            f"plasticity.pairs, {config['plasticity']['pairs']}"
        )
    for name, entry in models.items():
        yield from _model_entry_problems(entry, f"catalog.models.{name}")
    for path, name in _names_of_models(config):
        if name not in models:
            yield f"{path}: unknown model {name!r}; define it in catalog.models, or {schema.suggest(name, models)}"
    yield from _same_but_for_case(config)
    yield from _dataset_problems(config)
    for name in config["overrides"]:
        if name not in config["datasets"] and name not in models:
            known = [*config["datasets"], *models]
            yield f"overrides.{name}: neither a dataset of this study nor a model; {schema.suggest(name, known)}"
    for i, entry in enumerate(config["evaluate_on"]):
        name = entry["trained_on"]
        if name not in config["datasets"]:
            known = schema.suggest(name, config["datasets"])
            yield f"evaluate_on[{i}].trained_on: {name!r} is no dataset of this study; {known}"
    yield from _settings_problems(config)


def _same_but_for_case(config):
    """Names that would be one folder on file systems that take a and A for the same, those of macOS among them."""
    for names in (_names_of_models(config), _names_of_datasets(config)):
        met = {}
        for path, name in names:
            other = met.setdefault(name.casefold(), name)
            if other != name:
                yield f"{path}: {name!r} and {other!r} differ in case alone, which some file systems do not tell apart"


_ORIGINS = ("timm", "local", "shipped", "random", "pretrain")


def _model_entry_problems(entry, path):
    """What is wrong with an entry of catalog.models that is valid in shape."""
    origins = [key for key in _ORIGINS if key in entry]
    if len(origins) != 1:
        yield f"{path}: got {', '.join(entry)}; a model comes from exactly one of {', '.join(_ORIGINS)}"
    elif origins == ["pretrain"] and len(entry) > 1:
        beside = ", ".join(entry.keys() - {"pretrain"})
        yield f"{path}: got {beside} beside pretrain; what its images are like is said in pretrain"


def notes(config):
    """What the user of a study should know though it is no error: images stored smaller than a model takes them."""
    for model, name in itertools.product(config["models"], config["datasets"]):
        size, entry = _input_size(config, model), datasets.lookup(name, config["catalog"]["datasets"])
        if size and entry.short_side and entry.short_side < size:
            mend = f"write short_side: {size} beside imagefolder" if "path" in entry.options else "they are enlarged"
            yield (
                f"{model} takes images of {size} pixels, but those of {name} are stored with a shorter side of at most "
                f"{entry.short_side}: {mend}"
            )


def _input_size(config, model):
    """Pixels of the images that a model takes, as far as its name or its folder tells before it is loaded."""
    entry = config["catalog"]["models"][model]
    if "pretrain" in entry:
        return pretrain_settings(config, model)["image_size"]
    if "image_size" in entry:
        return entry["image_size"]
    for folder in (Path("resources", "models", model), Path(entry.get("local", ".")).expanduser()):
        try:
            about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            said = (about.get("pretrained_cfg") or about).get("input_size", about.get("image_size"))
            return said if isinstance(said, int) else int(said[-1])
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            continue
    tag = entry.get("timm", "")
    stated = re.search(r"[_-](\d{3})(?=[._-]|$)", tag)
    return int(stated[1]) if stated else 518 if "dinov2" in tag else None


def _component_problems(config):
    for i, component in enumerate(config["components"]):
        try:
            components.parse(component)
        except ValueError as error:
            yield f"components[{i}]: {error}"


def _adaptive_problems(config):
    """Why adaptive components cannot be resolved, as far as is known before anything is measured."""
    known = ["random", *dict.fromkeys(["plasticity", *config["predictors"]])]
    measured = config["plasticity"].get("models", config["models"])
    for i, name in enumerate(config["components"]):
        if not (auto := components.parse(name).auto):
            continue
        path, (predictor, count) = f"components[{i}]: {name!r}", auto
        if predictor not in known:
            yield f"{path}: {predictor} is not among the predictors of this study; {schema.suggest(predictor, known)}"
        for model in config["models"]:
            if predictor != "random" and model not in measured:
                yield f"{path}: nothing is measured of {model}; add it to plasticity.models"
        if len(names := candidates(config, name)) < count:
            yield (
                f"{path}: got {count}; choose at most as many as there are single components to choose from, "
                f"{len(names)}: {', '.join(names) or 'none'}"
            )


def _dataset_problems(config):
    """What is wrong with datasets, as far as the catalog, the table and the disk tell before one is fetched."""
    entries = {}
    for path, name in _names_of_datasets(config):
        if name in entries:
            continue
        try:
            entries[name] = entry = datasets.lookup(name, config["catalog"]["datasets"])
        except InputError as error:
            entries[name] = None
            yield f"{path}: {error}"
            continue
        made = Path("resources", "datasets", name).exists()
        if not made and (problem := datasets.problem(entry, trained=name in config["datasets"])):
            yield f"{path}: dataset {name}: {problem}"
    for model, name in itertools.product(config["models"], config["datasets"]):
        train = entries[name].sizes.get("train") if entries[name] else None
        batch = stage_settings(config, "finetune", name, model)["batch_size"]
        if train and batch > train:
            yield f"finetune.batch_size: got {batch} for {model} on {name}, which has {train} training images"
    for i, evaluation in enumerate(config["evaluate_on"]):
        trained = entries.get(evaluation["trained_on"])
        for name in evaluation["tested_on"]:
            tested = entries[name]
            if trained and tested and trained.classes and tested.classes and trained.classes != tested.classes:
                yield (
                    f"evaluate_on[{i}].tested_on: {name} has {tested.classes} classes, {trained.name} has "
                    f"{trained.classes}; a cell is tested on the classes that it was trained on"
                )


def _settings_problems(config):
    sections = {(section, json_text(config[section])): section for section in ("pretrain", "finetune")}
    for model, dataset in itertools.product(config["models"], config["datasets"]):
        given = stage_settings(config, "finetune", dataset, model)
        sections.setdefault(("finetune", json_text(given)), f"finetune of {model} on {dataset}")
    for name, entry in config["catalog"]["models"].items():
        if "pretrain" in entry:
            given = pretrain_settings(config, name)
            sections.setdefault(("pretrain", json_text(given)), f"catalog.models.{name}.pretrain")
    for (section, text), path in sections.items():
        yield from _section_problems(json.loads(text), section, path)


def _section_problems(given, section, path=None):
    """Settings of one stage that do not fit together, as texts. given: complete, valid in shape."""
    path = path or section
    if "crop_scale" in given and given["crop_scale"][0] > given["crop_scale"][1]:
        yield f"{path}.crop_scale: got {given['crop_scale']}; the least share must not be above the most"
    if "warmup_steps" in given and given["warmup_steps"] >= given["steps"]:
        yield f"{path}.warmup_steps: got {given['warmup_steps']}; must be less than steps, {given['steps']}"
    if given.get("evaluation_period", 0) > given.get("steps", 0):
        yield f"{path}.evaluation_period: got {given['evaluation_period']}; must be at most steps, {given['steps']}"
    for part, whole in (("accumulation", "batch_size"), ("patch_size", "image_size"), ("num_heads", "embed_dim")):
        if part in given and given[whole] % given[part]:
            yield f"{path}: {part} {given[part]} does not divide {whole} {given[whole]}"


def _names_of_models(config):
    yield from ((f"models[{i}]", name) for i, name in enumerate(config["models"]))
    yield from ((f"plasticity.models[{i}]", name) for i, name in enumerate(config["plasticity"].get("models", [])))


def _names_of_datasets(config):
    """Every dataset that the study would fetch: (path of the key, name)."""
    yield from ((f"datasets[{i}]", name) for i, name in enumerate(config["datasets"]))
    yield "plasticity.source", config["plasticity"]["source"]
    for i, entry in enumerate(config["evaluate_on"]):
        yield from ((f"evaluate_on[{i}].tested_on[{k}]", name) for k, name in enumerate(entry["tested_on"]))
    for name, entry in config["catalog"]["datasets"].items():
        if "of" in entry:
            yield f"catalog.datasets.{name}.of", entry["of"]
    for model in {name for _, name in _names_of_models(config)} & config["catalog"]["models"].keys():
        if "pretrain" in config["catalog"]["models"][model]:
            yield f"catalog.models.{model}.pretrain.dataset", config["catalog"]["models"][model]["pretrain"]["dataset"]
