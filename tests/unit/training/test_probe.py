"""The linear probe: features scaled as the paper says, fitted on train and validation, scored on test."""

import json

import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression

from vit_plasticity import probe
from vit_plasticity.runtime import cli


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
    assert probe.probe_accuracy(train, labels[:90], test, labels[90:], 500) == expected
    assert probe.probe_accuracy(3 * train, labels[:90], 5 * test, labels[90:], 500) == expected


def test_features_come_in_the_order_of_the_split(model, dataset):
    whole = probe.frozen_features(model, dataset.split("test"), "mean", 30)
    parts = probe.frozen_features(model, dataset.split("test"), "mean", 7)
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-6)
    assert whole.shape == (30, 24)


def test_the_stage_writes_one_row(model_folder, dataset_folder, tmp_path):
    output = tmp_path / "probe.parquet"
    arguments = ["--model", model_folder, "--dataset", dataset_folder, "--output", output]
    assert cli.run(probe.main, [*map(str, arguments), "--params", json.dumps({"pool": "class"})]) == 0
    (row,) = pq.read_table(output).to_pylist()
    assert (row["model"], row["dataset"], row["n_train"], row["n_test"], row["n_features"]) == (
        "small",
        "colours",
        72,
        30,
        24,
    )
    assert 0.8 < row["accuracy"] <= 1  # the classes differ in their colour
