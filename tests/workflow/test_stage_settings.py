"""The settings that a stage takes as one JSON text: held to the schema, refused in the workflow's words."""

import json

import pytest

from vit_plasticity import correlate, finetune, landscape, plasticity, pretrain, probe
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study import config as studies
from vit_plasticity.study.config import settings

STAGES = {
    "analysis": (correlate, ["--results", "r", "--output", "o"]),
    "finetune": (
        finetune,
        ["--model", "m", "--dataset", "d", "--component", "mha", "--seed", "0", "--output", "o"],
    ),
    "landscape": (landscape, ["--model", "m", "--dataset", "d", "--runs", "r", "--output", "o"]),
    "plasticity": (plasticity, None),
    "pretrain": (pretrain, ["--dataset", "d", "--output", "o"]),
    "probe": (probe, ["--model", "m", "--dataset", "d", "--output", "o"]),
}


def test_what_is_left_out_keeps_its_default():
    assert settings("finetune") == settings("finetune", "{}")
    assert (settings("finetune").flip, settings("finetune").crop_scale) == (True, (0.08, 1.0))
    assert settings("finetune", '{"steps": 2001}').steps == 2001


def test_whole_numbers_may_stand_for_fractions():
    given = settings("finetune", '{"lrs": [1, 0.5], "momentum": 0}')
    assert given.lrs == (1.0, 0.5)
    assert [type(v) for v in (*given.lrs, given.momentum)] == [float] * 3


def test_settings_do_not_change():
    given = settings("probe")
    with pytest.raises(AttributeError, match="max_iter cannot be set"):
        given.max_iter = 1
    given.as_dict()["max_iter"] = 1
    assert given == settings("probe")


@pytest.mark.parametrize("section", STAGES)
def test_settings_reach_their_stage_and_come_back(section):
    given = settings(section)
    assert settings(section, studies.json_text(given.as_dict())) == given


WRONG = {
    "no JSON": ("{", "--params is not JSON"),
    "a list": ("[]", "--params must be a JSON object, got '[]'"),
    "unknown key": ('{"stepz": 1}', "finetune.stepz: unknown key; did you mean steps?"),
    "no steps": ('{"steps": 0}', "finetune.steps: got 0; must be at least 1"),
    "optimizer": ('{"optimizer": "adam"}', "finetune.optimizer: got 'adam'; did you mean adamw? allowed: sgd, adamw"),
    "one share": ('{"crop_scale": [0.5]}', "finetune.crop_scale: got [0.5]; must have at least 2 item(s)"),
    "shares": ('{"crop_scale": [0.5, 0.1]}', "finetune.crop_scale: got [0.5, 0.1]; the least share must not be above"),
    "text for number": ('{"steps": "3"}', "finetune.steps: got '3'"),
    "fraction for whole": ('{"steps": 3.0}', "finetune.steps: got 3.0; must be a whole number"),
    "bool for whole": ('{"steps": true}', "finetune.steps: got True; must be a whole number"),
    "null": ('{"steps": null}', "finetune.steps: got None; must be a whole number"),
    "number for bool": ('{"flip": 1}', "finetune.flip: got 1; must be true or false"),
    "number for list": ('{"lrs": 0.1}', "finetune.lrs: got 0.1; must be a list"),
    "empty list": ('{"lrs": []}', "finetune.lrs: got []; must have at least 1 item(s)"),
    "texts in list": ('{"lrs": ["0.1"]}', "finetune.lrs[0]: got '0.1'"),
    "NaN": ('{"momentum": NaN}', "finetune.momentum: got nan; must be a finite number"),
    "infinite in list": ('{"lrs": [0.1, Infinity]}', "finetune.lrs[1]: got inf; must be a finite number"),
    "warm-up": ('{"warmup_steps": 10000}', "finetune.warmup_steps: got 10000; must be less than steps, 10000"),
    "period": ('{"evaluation_period": 10001}', "finetune.evaluation_period: got 10001; must be at most steps, 10000"),
    "parts": ('{"accumulation": 3}', "finetune: accumulation 3 does not divide batch_size 512"),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_refused_by_the_stage(text, words):
    stage, arguments = STAGES["finetune"]
    with pytest.raises(InputError) as error:
        stage.main([*arguments, "--params", text])
    assert words in str(error.value)


@pytest.mark.parametrize("name", [name for name, (text, _) in WRONG.items() if text.startswith('{"')])
def test_wrong_settings_are_refused_by_the_workflow_in_the_same_words(name):
    text, words = WRONG[name]
    config = {"study": "s", "models": ["m"], "datasets": ["digits"], "components": ["mha"], "seeds": [0]}
    config |= {"catalog": {"models": {"m": {"timm": "x"}}}, "plasticity": {"source": "fractals"}}
    studies.resolve(config)
    with pytest.raises(InputError) as error:
        studies.resolve(config | {"finetune": json.loads(text)})
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("section", "text"),
    [("analysis", '{"confidence": 1.5}'), ("pretrain", '{"steps": 50}'), ("landscape", '{"grid_points": 4}')],
)
def test_other_stages_refuse_too(section, text):
    stage, arguments = STAGES[section]
    with pytest.raises(InputError, match="--params cannot be used"):
        stage.main([*arguments, "--params", text])
