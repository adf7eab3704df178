"""Files of a configuration: read, held to the schema one by one, and laid over each other as Snakemake does it."""

from pathlib import Path

import yaml

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import schema

DEFAULT = Path(__file__).parents[3] / "config.yaml"
"""The default study, which is read where no file is given."""


def load(files):
    """The configuration that Snakemake makes of files: later ones are laid over earlier ones, maps merge, all else is
    replaced."""
    merged = {}
    for file in files or [DEFAULT]:
        merged = _laid_over(merged, read(file))
    return merged


def read(file):
    """One file of a configuration as a dict.

    Raises InputError for what is no map, a key that is given twice, of which YAML itself would silently keep the last,
    and all that the schema forbids wherever else the file is laid over; Snakemake would drop an empty map over a list.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
        loaded = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{file} must hold a map of keys, got {loaded!r:.80}")
    schema.refuse(_repeated(yaml.compose(text), [], file, set()), file)
    refuse_part(loaded, file)
    return loaded


def refuse_part(given, what):
    """Raise InputError for what the schema forbids in a part of a configuration, which need not be complete."""
    schema.refuse(schema.problems(given, schema.load(), complete=False), what)


def refuse_command_line(given):
    """As `refuse_part`, of what snakemake made of ``--config``, in which nested values are texts."""
    schema.refuse(schema.problems(given, schema.load(), complete=False, command_line=True), "--config")


def _repeated(node, path, file, seen):
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))  # an anchor may be named many times, and within itself
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _repeated(item, [*path, i], file, seen)
        return
    lines = {}
    for key, value in node.value:
        here, line = [*path, str(key.value)], key.start_mark.line + 1
        if first := lines.get(here[-1]):
            twice = f"given in line {first} and again in line {line} of {file}"
            yield f"{schema.path_text(here)}: {twice}; give it once"
        lines.setdefault(here[-1], line)
        yield from _repeated(value, here, file, seen)


def _laid_over(base, over):
    merged = dict(base)
    for key, value in over.items():
        below = base.get(key)
        merged[key] = _laid_over(below if isinstance(below, dict) else {}, value) if isinstance(value, dict) else value
    return merged
