"""A study: a configuration, checked as a whole, and the cells that it stands for.

Neither torch nor pandas is imported here: this module runs each time that the workflow is parsed.
"""

import copy
import difflib
import itertools
import json
import math
import shutil
from pathlib import Path

from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import components

CELL_KEYS = ("model", "dataset", "component", "seed")


def resolve(config, schema):
    """The configuration with every default filled in. `schema` is src/vit_plasticity/study/config.schema.yaml, loaded.

    Raises InputError that lists all problems at once: each with the path of its key, what was got, what is allowed.
    """
    problems = [*_shape_problems(config, schema)]
    if not problems:
        config = _with_defaults(copy.deepcopy(config), schema, schema)
        problems = [*_meaning_problems(config)]
    _refuse(problems)
    return config


def refuse_repeated_keys(file):
    """Raise InputError if a YAML file gives a key twice, of which YAML itself would silently keep the last."""
    import yaml

    seen = set()

    def repeated(node, path):
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            return
        seen.add(id(node))  # an anchor may be named many times, and within itself
        if isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                yield from repeated(item, [*path, i])
            return
        lines = {}
        for key, value in node.value:
            here, line = [*path, str(key.value)], key.start_mark.line + 1
            if first := lines.get(here[-1]):
                yield f"{_path(here)}: given in line {first} and again in line {line} of {file}; give it once"
            lines.setdefault(here[-1], line)
            yield from repeated(value, here)

    if root := yaml.compose(Path(file).read_text(encoding="utf-8")):
        _refuse([*repeated(root, [])])


def cells(config):
    """The cells of a study, as dicts of model, dataset, component, seed, in the order of the configuration."""
    values = (config["models"], config["datasets"], config["components"], config["seeds"])
    return [dict(zip(CELL_KEYS, cell, strict=True)) for cell in itertools.product(*values)]


def measured_models(config):
    """The models whose plasticity is measured."""
    return config["plasticity"].get("models", config["models"])


def measured_components(config):
    """The components of a study that have a plasticity, in its order: all ids that repeat in blocks."""
    return [c for c in config["components"] if c in components.BLOCK_COMPONENTS]


def evaluated_on(config):
    """Dataset that cells were trained on → the datasets that they are also evaluated on, without repetition."""
    targets = {}
    for entry in config["evaluate_on"]:
        named = targets.setdefault(entry["trained_on"], [])
        named += [name for name in entry["tested_on"] if name not in named]
    return targets


def clear_work(folder):
    """Remove what finished cells left in the work folder of a study (see `vit_plasticity.finetune`), no checkpoint."""
    for left in Path(folder).glob("*/"):
        unfinished = any(file.suffix in (".checkpoint", ".previous") for file in left.iterdir())
        if not unfinished and not left.with_suffix(".lock").exists():
            shutil.rmtree(left, ignore_errors=True)


def stage_settings(config, stage, *names):
    """The section of a stage with the overrides for `names` (a dataset, then a model) applied, as a dict."""
    settings = dict(config[stage])
    for name in names:
        settings |= config["overrides"].get(name, {}).get(stage, {})
    return settings


def json_text(value):
    """JSON with sorted keys: the one form in which settings are passed to a stage, and compared."""
    return json.dumps(value, sort_keys=True)


def _refuse(problems):
    if problems:
        listed = "\n".join(f"  - {p}" for p in problems)
        raise InputError(
            f"the configuration cannot be used:\n{listed}\n"
            "Every key is explained in src/vit_plasticity/study/config.schema.yaml."
        )


def _shape_problems(config, schema):
    """Problems that the schema finds, as texts."""
    import jsonschema

    # In JSON 5.0 is an integer; here it would become another text, and so another result.
    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, v: type(v) is int).redefine(
        "number", lambda _, v: type(v) is int or (type(v) is float and math.isfinite(v))
    )
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=types)(schema)
    for error in sorted(validator.iter_errors(config), key=lambda e: [str(p) for p in e.absolute_path]):
        yield from _explain(error)


def _explain(error):
    """A schema error as texts that name the key, the value, and what is allowed."""
    path = _path(error.absolute_path)
    got = f"got {_short(error.instance)}"
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema.get("properties", {}))
        for key in [k for k in error.instance if k not in allowed]:
            yield f"{_path([*error.absolute_path, key])}: unknown key; {_suggest(key, allowed)}"
    elif error.validator == "required":
        missing = [k for k in error.validator_value if k not in error.instance]
        yield from (f"{_path([*error.absolute_path, key])}: missing; it must be given" for key in missing)
    elif error.validator == "type":
        hint = ""
        if isinstance(error.instance, str) and _is_number(error.instance):
            hint = f" (a text; YAML reads a number in this form: {float(error.instance):.1e})"
        yield f"{path}: {got}{hint}; must be {_article(error.validator_value)}"
    elif error.validator == "enum":
        yield f"{path}: {got}; {_suggest(error.instance, error.validator_value)}"
    elif error.validator == "pattern":
        yield f"{path}: {got}; a name is made of letters, digits, '_', '.' and '-', starting with a letter or digit"
    else:
        limits = {
            "minimum": "must be at least {}",
            "exclusiveMinimum": "must be more than {}",
            "maximum": "must be at most {}",
            "exclusiveMaximum": "must be less than {}",
            "minItems": "must have at least {} item(s)",
            "maxItems": "must have at most {} item(s)",
            "minProperties": "must have at least {} key(s)",
            "maxProperties": "must have at most {} key(s): choose one",
            "minLength": "must have at least {} character(s)",
            "maxLength": "must have at most {} characters",
            "uniqueItems": "must name each item once",
        }
        yield f"{path}: {got}; {limits.get(error.validator, error.message).format(error.validator_value)}"


def _meaning_problems(config):
    """Problems that no schema can see: names that stand for nothing, and values that do not fit together."""
    catalog = config["catalog"]
    models = catalog["models"]
    for i, component in enumerate(config["components"]):
        try:
            components.parts(component)
        except ValueError as error:
            close = difflib.get_close_matches(component, components.COMPONENTS, n=1)
            yield f"components[{i}]: {error}" + (f"; did you mean {close[0]}?" if close else "")
    for path, name in _names_of_models(config):
        if name not in models:
            yield f"{path}: unknown model {name!r}; define it in catalog.models, or {_suggest(name, models)}"
    seen = set()
    for path, name in _names_of_datasets(config):
        if name in seen:
            continue
        seen.add(name)
        try:
            datasets.lookup(name, catalog["datasets"])
        except InputError as error:
            yield f"{path}: {error}"
    for name in config["overrides"]:
        if name not in config["datasets"] and name not in models:
            known = [*config["datasets"], *models]
            yield f"overrides.{name}: neither a dataset of this study nor a model; {_suggest(name, known)}"
    for i, entry in enumerate(config["evaluate_on"]):
        name = entry["trained_on"]
        if name not in config["datasets"]:
            known = _suggest(name, config["datasets"])
            hint = "write evaluate_on: [] where nothing is to be evaluated elsewhere"
            yield f"evaluate_on[{i}].trained_on: {name!r} is no dataset of this study; {known}; {hint}"
    yield from _settings_problems(config)


def _settings_problems(config):
    for path, low_high in (
        ("pretrain.crop_scale", config["pretrain"]["crop_scale"]),
        ("finetune.crop_scale", config["finetune"]["crop_scale"]),
    ):
        if low_high[0] > low_high[1]:
            yield f"{path}: got {low_high}; the least share must not be above the most"
    for model, dataset in itertools.product(config["models"], config["datasets"]):
        settings = stage_settings(config, "finetune", dataset, model)
        if settings["batch_size"] % settings["accumulation"]:
            sizes = f"accumulation {settings['accumulation']} does not divide batch_size {settings['batch_size']}"
            yield f"finetune of {model} on {dataset}: {sizes}"
    for name, entry in config["catalog"]["models"].items():
        sizes = config["pretrain"] | entry.get("pretrain", {})
        for part, whole in (("patch_size", "image_size"), ("num_heads", "embed_dim")):
            if "pretrain" in entry and sizes[whole] % sizes[part]:
                yield f"catalog.models.{name}: {part} {sizes[part]} does not divide {whole} {sizes[whole]}"


def _names_of_models(config):
    yield from ((f"models[{i}]", name) for i, name in enumerate(config["models"]))
    yield from ((f"plasticity.models[{i}]", name) for i, name in enumerate(config["plasticity"].get("models", [])))


def _names_of_datasets(config):
    """Every dataset that the study would fetch: (path of the key, name)."""
    yield from ((f"datasets[{i}]", name) for i, name in enumerate(config["datasets"]))
    yield "plasticity.source", config["plasticity"]["source"]
    for i, entry in enumerate(config["evaluate_on"]):
        yield from ((f"evaluate_on[{i}].tested_on[{k}]", name) for k, name in enumerate(entry["tested_on"]))
    for model in {name for _, name in _names_of_models(config)} & config["catalog"]["models"].keys():
        if "pretrain" in config["catalog"]["models"][model]:
            yield f"catalog.models.{model}.pretrain.dataset", config["catalog"]["models"][model]["pretrain"]["dataset"]


def _with_defaults(value, schema, root):
    """`value` with the defaults of the schema filled in, at every depth."""
    if not isinstance(value, dict):
        return value
    for key, sub in schema.get("properties", {}).items():
        if key not in value and "default" in sub:
            value[key] = copy.deepcopy(sub["default"])
        if key in value:
            _with_defaults(value[key], sub, root)
    return value


def _path(parts):
    """A key's path as people write it: ``finetune.lrs[0]``."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)
    return text.removeprefix(".") or "the configuration"


def _short(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _suggest(got, allowed):
    close = difflib.get_close_matches(str(got), [str(a) for a in allowed], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(map(str, allowed)) or 'none'}"


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _article(kind):
    return {
        "integer": "a whole number",
        "number": "a finite number",
        "array": "a list",
        "object": "a map",
        "boolean": "true or false",
        "string": "a text",
    }[kind]
