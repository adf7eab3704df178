"""The settings that a stage takes as one JSON text, also without Snakemake: typed, or refused in words."""

import json

import pytest

from vit_plasticity.correlate import AnalysisParams
from vit_plasticity.finetune import FinetuneParams
from vit_plasticity.runtime.cli import InputError, params


def test_what_is_left_out_keeps_its_default():
    assert params(FinetuneParams, "{}") == FinetuneParams()
    assert params(FinetuneParams, '{"steps": 3}').steps == 3


def test_whole_numbers_may_stand_for_fractions():
    given = params(FinetuneParams, '{"lrs": [1, 0.5], "momentum": 0}')
    assert given.lrs == (1.0, 0.5)
    assert [type(v) for v in (*given.lrs, given.momentum)] == [float] * 3


WRONG = {
    "no JSON": ("{", "--params is not JSON"),
    "a list": ("[]", "--params must be a JSON object, got '[]'"),
    "unknown key": ('{"stepz": 1}', "unknown key 'stepz'; choose from lrs, steps, evaluation_period"),
    "text for number": ('{"steps": "3"}', "steps must be of type int, such as 10000, got '3'"),
    "fraction for whole": ('{"steps": 3.0}', "steps must be of type int"),
    "bool for whole": ('{"steps": true}', "steps must be of type int"),
    "null": ('{"steps": null}', "steps must be of type int, such as 10000, got None"),
    "number for bool": ('{"flip": 1}', "flip must be of type bool, such as true, got 1"),
    "number for text": ('{"optimizer": 1}', 'optimizer must be of type str, such as "sgd", got 1'),
    "number for list": ('{"lrs": 0.1}', "lrs must be of type list of finite numbers"),
    "empty list": ('{"lrs": []}', "lrs must be of type list of finite numbers"),
    "texts in list": ('{"lrs": ["0.1"]}', "lrs must be of type list of finite numbers"),
    "NaN": ('{"momentum": NaN}', "momentum must be of type finite float, such as 0.9, got nan"),
    "infinite in list": ('{"lrs": [0.1, Infinity]}', "lrs must be of type list of finite numbers"),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_refused(text, words):
    with pytest.raises(InputError) as error:
        params(FinetuneParams, text)
    assert words in str(error.value)


def test_limits_that_a_stage_sets_itself():
    with pytest.raises(InputError, match="confidence must lie between 0 and 1"):
        params(AnalysisParams, json.dumps({"confidence": 1.5}))
