"""Where the rows of a stage come from, and the refusal to mix what was made differently. Standard library only."""

import hashlib
import json
import re

from vit_plasticity.runtime.cli import InputError

_OVERRIDDEN = ("finetune", "history", "evaluate")
"""Stages whose settings a study may give per model and dataset."""
_REMEDY = "Make the older ones again (snakemake does so by itself), or name files of one kind."


def refuse_mixed(stage, paths, abouts):
    """Raise InputError where tables of one stage differ in what all of them must share, and say which files do.

    abouts: the dict `about` of each of `paths`. All must be of one stage, study, revision and settings
    (these per model and dataset where a study may override them).
    """
    for field in ("stage", "study", "rev"):
        _refuse(stage, field, paths, [one[field] for one in abouts], lambda value: repr(value))
    groups = {}
    for path, one in zip(paths, abouts, strict=True):
        names = ("predictor", "model", "dataset") if stage in _OVERRIDDEN else ("predictor",)
        place = tuple(one["key"].get(name) for name in names)
        groups.setdefault(place, []).append((path, one.get("settings")))
    for group in groups.values():
        _refuse(stage, "settings", *zip(*group, strict=True), None)


def refuse_other_inputs(paths, abouts):
    """Raise InputError where one name (of a model, a dataset, a source) stands for different contents.

    paths, abouts: of the tables of all stages together.
    """
    seen = {}
    for path, one in zip(paths, abouts, strict=True):
        for name, fingerprint in (one.get("inputs") or {}).items():
            named = (name, one["key"][name]) if name in one["key"] else (name, one["stage"])
            seen.setdefault(named, []).append((path, fingerprint))
    for (kind, name), found in seen.items():
        what = f"{kind} {name!r}" if kind in ("model", "dataset") else f"{kind} of {name}"
        _refuse(what, "contents", *zip(*found, strict=True), lambda value: f"{value:.12}…")


def describe(abouts):
    """What the tables of one stage say of themselves, in short: a dict of JSON values.

    fingerprint: of all that they say of themselves; settings and provenance: the different ones.
    """
    texts = [json.dumps(one, sort_keys=True) for one in abouts]
    first = abouts[0]
    return {name: first[name] for name in ("study", "stage", "rev")} | {
        "n_files": len(texts),
        "fingerprint": hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest(),
        "settings": _different(one.get("settings") for one in abouts),
        "provenance": _different(one["provenance"] for one in abouts),
    }


def _different(values):
    return [json.loads(text) for text in sorted({json.dumps(value, sort_keys=True) for value in values})]


def _refuse(what, field, paths, values, shown):
    """Raise InputError unless all values are equal. shown: a value in words; None for settings, whose keys are."""
    kinds = {}
    for path, value in zip(paths, values, strict=True):
        kinds.setdefault(json.dumps(value, sort_keys=True), []).append((path, value))
    if len(kinds) < 2:
        return
    (first, *_), *others = kinds.values()
    words = []
    for found in kinds.values():
        path, value = found[0]
        rest = f" and {len(found) - 1} more" if len(found) > 1 else ""
        words.append(f"{path}{rest}: {shown(value) if shown else _differing(value, first[1], others[0][0][1])}")
    raise InputError(f"{what}: tables of different {field} cannot be mixed. {'; '.join(words[:4])}. {_REMEDY}")


def _differing(value, a, b):
    """Those settings of `value` in which a and b differ."""
    if not isinstance(a, dict) or not isinstance(b, dict):
        return "no settings recorded" if value is None else _short(value)
    keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    return _short({key: (value or {}).get(key) for key in keys})


def _short(value):
    return re.sub(r"(.{200}).+", r"\1…", json.dumps(value))
