"""The schema of a study, `config.schema.yaml`: the only home of defaults and limits, read and applied.

Neither torch nor pandas is imported here: this module runs each time that the workflow is parsed.
"""

import copy
import difflib
import functools
import math
from pathlib import Path

import yaml

from vit_plasticity.runtime.cli import InputError

FILE = Path(__file__).with_name("config.schema.yaml")


@functools.cache
def load():
    """The schema as a dict, which nobody may change."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(FILE.read_text(encoding="utf-8"), loader)


def section(name):
    """The part of the schema for the settings of one stage, without the keys that are inputs of its jobs (`input`)."""
    whole = load()["properties"][name]
    properties = {key: sub for key, sub in whole["properties"].items() if not sub.get("input")}
    required = [key for key in whole.get("required", []) if key in properties]
    return whole | {"properties": properties, "required": required, "$defs": load()["$defs"]}


def refuse(problems, what):
    """Raise InputError that lists problems, texts, if there are any; `what`: the thing that has them."""
    if listed := "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems)):
        raise InputError(
            f"{what} cannot be used:\n{listed}\nEvery key is explained in src/vit_plasticity/study/config.schema.yaml."
        )


def problems(value, schema, path=(), *, complete=True, command_line=False):
    """What the schema finds wrong, as texts; `path`: the keys that lead to `value`, for the texts. complete: also that
    keys are missing. command_line: whether `value` is what snakemake made of --config."""
    import jsonschema

    # In JSON 5.0 is an integer; here it would become another text, and so another result.
    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, v: type(v) is int).redefine(
        "number", lambda _, v: type(v) is int or (type(v) is float and math.isfinite(v))
    )
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=types)(schema)
    for error in sorted(validator.iter_errors(value), key=lambda e: [str(p) for p in e.absolute_path]):
        if complete or error.validator != "required":
            yield from _explain(error, [*path, *error.absolute_path], command_line)


def with_defaults(value, schema):
    """`value`, valid, with the defaults of the schema filled in at every depth, and fractions as floats."""
    schema = _referred(schema)
    if schema.get("type") == "number":
        return float(value)
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    filled = {key: copy.deepcopy(sub["default"]) for key, sub in known.items() if "default" in sub} | value
    other = schema.get("additionalProperties") or {}
    return {key: with_defaults(item, known.get(key, other)) for key, item in filled.items()}


def path_text(parts):
    """A key's path as people write it: ``finetune.lrs[0]``."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)
    return text.removeprefix(".") or "the configuration"


def suggest(got, allowed):
    """The names that are allowed, and which of them was perhaps meant."""
    close = difflib.get_close_matches(str(got), [str(a) for a in allowed], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(map(str, allowed)) or 'none'}"


def _referred(schema):
    """A part of the schema with its reference to a shared definition resolved."""
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    return load()["$defs"][name] | schema if name else schema


_LIMITS = {
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
_KINDS = {
    "integer": "a whole number",
    "number": "a finite number",
    "array": "a list",
    "object": "a map",
    "boolean": "true or false",
    "string": "a text",
}


def _explain(error, parts, command_line):
    """A schema error as texts that name the key, the value, and what is allowed."""
    path, got = path_text(parts), f"got {_short(error.instance)}"
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema.get("properties", {}))
        for key in [k for k in error.instance if k not in allowed]:
            yield f"{path_text([*parts, key])}: unknown key; {suggest(key, allowed)}"
    elif error.validator == "required":
        missing = [k for k in error.validator_value if k not in error.instance]
        yield from (f"{path_text([*parts, key])}: missing; it must be given" for key in missing)
    elif error.validator == "type":
        nested = command_line and len(parts) > 1 and isinstance(error.instance, str)
        yield f"{path}: {got}{_NESTED if nested else _hint(error.instance)}; must be {_KINDS[error.validator_value]}"
    elif error.validator == "enum":
        yield f"{path}: {got}; {suggest(error.instance, error.validator_value)}"
    elif error.validator == "pattern":
        yield f"{path}: {got}; a name is made of letters, digits, '_', '.' and '-', starting with a letter or digit"
    else:
        yield f"{path}: {got}; {_LIMITS.get(error.validator, error.message).format(error.validator_value)}"


_NESTED = " (a text, as --config makes one of each nested value: write it into a second file for --configfile)"


def _hint(value):
    """Why a text that looks like a number, a list or a map is a text."""
    if not isinstance(value, str):
        return ""
    if value.strip()[:1] in ("[", "{"):
        return " (a text; snakemake --config passes lists and maps as texts: write them into a file for --configfile)"
    try:
        number = float(value)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    if isinstance(yaml.safe_load(value), int | float):
        return f" (a text, as it stands in quotation marks; write {value.strip()})"
    return f" (a text; YAML reads a number in this form: {number:.1e})"


def _short(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
