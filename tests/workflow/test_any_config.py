"""Whatever stands in a configuration, it is accepted or refused in words; nothing else happens."""

import copy
import json

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import ROOT, smoke_config

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import config as studies

SCHEMA = yaml.safe_load((ROOT / "src" / "vit_plasticity" / "study" / "config.schema.yaml").read_text())
BASE = studies.resolve(smoke_config())

SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=4)),
    *(st.dates(), st.datetimes(), st.sampled_from(["digits", "mha", "vit_smoke", "1e-3", "../x", "$(x)", "a\n"])),
)
KEYS = st.one_of(st.text(max_size=6), st.integers(), st.booleans(), st.none(), st.sampled_from([*BASE, "lrs", "steps"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3) | st.sets(SCALARS, max_size=2),
    max_leaves=6,
)


def places(value, path=()):
    """(path, value) of everything in a configuration."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from places(below, (*path, key))


PATHS = [path for path, _ in places(BASE) if path]
MAPS = [path for path, value in places(BASE) if isinstance(value, dict)]


def changed(path, value):
    """The smoke study with one value in the place of another, or added."""
    config = copy.deepcopy(BASE)
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return config


def check(config, path):
    """A configuration is refused in words that name the key, or accepted: then it is what Snakemake and the stages can
    hold, and stays the same when it is resolved again."""
    before = repr(config)
    try:
        resolved = studies.resolve(config)
    except InputError as error:
        assert str(error).startswith("the configuration cannot be used:\n  - ")
        assert not path or str(path[0]) in str(error)
    else:
        assert json.loads(json.dumps(resolved, allow_nan=False)) == resolved
        assert studies.resolve(resolved) == resolved
    assert repr(config) == before


@given(path=st.sampled_from(PATHS), value=VALUES)
@settings(max_examples=500, deadline=None)
def test_one_value_replaced(path, value):
    check(changed(path, value), ())


@given(path=st.sampled_from(MAPS), key=KEYS, value=VALUES)
@settings(max_examples=300, deadline=None)
def test_one_key_added_or_replaced(path, key, value):
    check(changed((*path, key), value), path)


@given(config=st.dictionaries(KEYS, VALUES, max_size=6))
@settings(max_examples=200, deadline=None)
def test_anything_at_all(config):
    check(config, ())
