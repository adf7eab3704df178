"""The models that come with the package: small, undamaged, made by the study that says so, as good as it says."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from vit_plasticity import fetch, vit
from vit_plasticity.data.registry import open_dataset
from vit_plasticity.study.config import settings
from vit_plasticity.training.probe import frozen_features
from vit_plasticity.vit.fetch import SHIPPED

STUDY = Path(__file__).parents[3] / "workflow" / "studies" / "pretrain.yaml"
NAMES = [path.name for path in SHIPPED.iterdir()]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The prepared dataset digits."""
    folder = tmp_path_factory.mktemp("shipped") / "digits"
    fetch.main(["dataset", "digits", "--output", str(folder)])
    return open_dataset(folder)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_undamaged(name):
    weights = SHIPPED / name / vit.WEIGHTS
    note = json.loads((SHIPPED / name / vit.PROVENANCE).read_text())
    assert sum(file.stat().st_size for file in weights.parent.iterdir()) < 2_000_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == note["fingerprint"]


def test_vit_mini_was_made_with_the_settings_of_the_study_that_makes_it_again():
    source = json.loads((SHIPPED / "vit_mini" / vit.PROVENANCE).read_text())["source"]
    study = yaml.safe_load(STUDY.read_text())
    asked = settings("pretrain", json.dumps(study["pretrain"])).as_dict()
    entry = study["catalog"]["models"]["vit_mini_anew"]["pretrain"]
    assert {name: source[name] for name in asked} == json.loads(json.dumps(asked))
    assert source["pretrained_on"] == entry["dataset"] in study["catalog"]["datasets"]


def test_a_linear_probe_on_vit_mini_is_as_good_as_the_study_says(digits):
    model, train = vit.load(SHIPPED / "vit_mini", "cpu"), digits.split("train")
    features = frozen_features(model, train, "mean", 256)
    probe = make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(max_iter=3000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    accuracy = cross_val_score(probe, features, np.asarray(train.labels), cv=folds).mean()
    assert accuracy == pytest.approx(0.886, abs=0.005)
    assert "cross-validated: 88.6 %" in STUDY.read_text()
