"""Stopping a measurement early: off unless asked for, the same pairs as without, and intervals that hold."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vit_plasticity import plasticity
from vit_plasticity.plasticity import PlasticityParams
from vit_plasticity.predictors import sequential


def measured(model, dataset, component="fc1", **params):
    params = PlasticityParams(**{"pairs": 150} | params)
    return plasticity.measure(model, dataset.split("train"), dataset.split("test"), component, params)


def test_all_pairs_are_used_unless_a_width_is_given(model, dataset):
    assert PlasticityParams().relative_width == 0
    assert measured(model, dataset).shape == (2, 150)


@pytest.mark.parametrize("component", ["ln1", "fc2", "mha"])
def test_a_wide_interval_stops_at_the_first_look_with_the_same_pairs(model, dataset, component):
    everything = measured(model, dataset, component)
    early = measured(model, dataset, component, relative_width=10.0)
    assert early.shape == (2, 64)
    torch.testing.assert_close(early, everything[:, :64])


def test_a_narrow_interval_takes_all_pairs(model, dataset):
    torch.testing.assert_close(measured(model, dataset, relative_width=1e-6), measured(model, dataset))


def test_every_block_must_be_known_well_enough():
    rates = np.stack([np.full(64, 2.0), np.tile([1.0, 3.0], 32)])
    assert not sequential.narrow_enough(rates, 0.1, n_looks=4)
    assert sequential.narrow_enough(rates[:1], 0.1, n_looks=4)


def test_the_width_is_that_of_the_last_look(model, dataset):
    width, n_looks = 0.02, len(sequential.looks(2000))
    rates = measured(model, dataset, pairs=2000, relative_width=width).numpy()
    assert 64 < rates.shape[1] < 2000
    assert sequential.narrow_enough(rates, width, n_looks)
    assert not sequential.narrow_enough(rates[:, : rates.shape[1] // 2], width, n_looks)


@given(most=st.integers(1, 100_000))
def test_looks_double_and_end_at_the_most(most):
    looks = sequential.looks(most)
    assert looks[-1] == most
    assert looks[:-1] == [64 * 2**i for i in range(len(looks) - 1)]
    assert all(a < b <= 2 * a for a, b in itertools.pairwise(looks))


def test_intervals_hold_at_all_looks_together():
    """Of 2,000 measurements of skewed rates, at most 5 % ever leave the mean outside, so few do at the last look."""
    looks = sequential.looks(2048)
    random = np.random.default_rng(0)
    rates = random.lognormal(sigma=0.3, size=(2000, looks[-1]))
    truth = np.exp(0.3**2 / 2)
    outside = np.zeros(len(rates), dtype=bool)
    for n in looks:
        half = sequential.half_widths(rates[:, :n], len(looks))
        outside |= np.abs(rates[:, :n].mean(axis=1) - truth) > half
    assert outside.mean() < 0.05
