"""The linear probe: features scaled as the paper says, fitted on what cells train on, scored on test."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vit_plasticity import probe
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.training import probe as training_probe

SETTINGS = {"pool": "mean", "tap": "ffn", "max_iter": 500, "batch_size": 256, "fit_on": "train", "augment": False}


def test_features_are_scaled_to_unit_length_then_standardised():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 120)
    x = random.normal(size=(120, 8)) + np.eye(8)[labels]
    x *= random.uniform(0.1, 10, (120, 1))  # lengths that must not matter
    train, test = x[:90], x[90:]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (train, test)]
    mean, std = unit[0].mean(axis=0), unit[0].std(axis=0)
    classifier = LogisticRegression(max_iter=500).fit((unit[0] - mean) / std, labels[:90])
    expected = classifier.score((unit[1] - mean) / std, labels[90:])
    found = training_probe.fit(train, labels[:90], test, labels[90:], 500)
    assert found == {"accuracy": expected, "converged": True, "n_iter": classifier.n_iter_[0]}
    assert training_probe.fit(3 * train, labels[:90], 5 * test, labels[90:], 500)["accuracy"] == expected


def test_solver_that_does_not_converge_says_so(dataset, model, capsys):
    row = training_probe.probe(model, dataset, SimpleNamespace(**SETTINGS | {"max_iter": 2}))
    assert (row["converged"], row["n_iter"]) == (False, 2)
    assert "did not converge in max_iter 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tap", "place"), [("ffn", ("ffn", 1)), ("mha", ("mha", 1)), ("mha@0", ("mha", 0)), ("embed", ("embed", None))]
)
def test_a_probe_reads_where_it_is_told_to(tap, place, dataset, model):
    settings = SimpleNamespace(**SETTINGS | {"tap": tap})
    rows = {(row["tap"], row["block"]): row for row in training_probe.probe_taps(model, dataset, settings)}
    found = training_probe.probe(model, dataset, settings)
    assert {key: found[key] for key in ("accuracy", "n_iter")} == {k: rows[place][k] for k in ("accuracy", "n_iter")}


def test_a_tap_that_the_model_does_not_have_is_refused(dataset, model):
    with pytest.raises(InputError, match=r"probe.tap: got 'mha@2'; the model's blocks are 0 to 1"):
        training_probe.probe(model, dataset, SimpleNamespace(**SETTINGS | {"tap": "mha@2"}))


def test_features_that_are_not_finite_are_refused(dataset, model):
    with torch.no_grad():
        model.blocks[0].mlp.fc1.bias[0] = torch.nan
    with pytest.raises(InputError, match="60 of 60 train images of colours have features that are not finite"):
        training_probe.probe(model, dataset, SimpleNamespace(**SETTINGS))


def test_test_images_enter_no_fit(dataset, model):
    """What the probe is fitted on decides its iterations; other test images may change the accuracy alone."""
    one, other = (training_probe.probe(model, d, SimpleNamespace(**SETTINGS)) for d in (dataset, Swapped(dataset)))
    assert one["n_iter"] == other["n_iter"]
    assert one["accuracy"] != other["accuracy"]


class Swapped:
    """A dataset whose validation and test images are others: those of train, with wrong labels."""

    def __init__(self, dataset):
        self.dataset, self.name = dataset, dataset.name

    def split(self, name):
        split = self.dataset.split("train")
        return split if name == "train" else SimpleNamespace(images=split.images, labels=(split.labels + 1) % 3)


def test_features_come_in_the_order_of_the_split(model, dataset):
    whole = training_probe.frozen_features(model, dataset.split("test"), "mean", 30)
    parts = training_probe.frozen_features(model, dataset.split("test"), "mean", 7)
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-6)
    assert whole.shape == (30, 24)


@pytest.mark.parametrize(
    ("settings", "n_train"),
    [
        ({"fit_on": "train"}, 60),
        ({"fit_on": "train_and_val"}, 72),
        ({"augment": True, "batch_size": 25}, 50),  # whole batches of crops
    ],
)
def test_the_stage_writes_one_row(settings, n_train, model_folder, dataset_folder, tmp_path):
    output = tmp_path / "probe.parquet"
    arguments = ["--model", model_folder, "--dataset", dataset_folder, "--output", output]
    assert cli.run(probe.main, [*map(str, arguments), "--params", json.dumps({"pool": "class"} | settings)]) == 0
    (row,) = pq.read_table(output).to_pylist()
    assert (row["model"], row["dataset"], row["n_train"], row["n_test"], row["n_features"]) == (
        "small",
        "colours",
        n_train,
        30,
        24,
    )
    assert 0.8 < row["accuracy"] <= 1  # the classes differ in their colour
