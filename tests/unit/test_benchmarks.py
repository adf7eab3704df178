"""What benchmarks compare with: the plain baseline gives the numbers of this package."""

import dataclasses
import importlib

import pytest
import torch
from small_vit import small_vit

from benchmarks import __main__, harness, plain, report
from vit_plasticity import plasticity
from vit_plasticity.vit.components import MEASURABLE


def test_plain_rates_of_change_are_ours():
    model = small_vit()
    source, target = torch.randn(2, plain.AT_ONCE + 1, 3, 16, 16)
    plainly = plain.rates_of_change(model, source, target)
    assert plainly.keys() == set(MEASURABLE)
    for component, rates in plainly.items():
        ours = plasticity.rates_of_change(model, source, target, component)
        torch.testing.assert_close(rates.double(), ours, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", __main__.SUBJECTS)
def test_every_subject_can_be_measured(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").measure)


def test_a_goal_stands_beside_its_measurement():
    missed, unknown = harness.at_least("A", 4, [2.0, 3.0, 5.0]), harness.not_measured("B", "at least 4 ×")
    rows = [report.row(dataclasses.asdict(result)) for result in (missed, unknown)]
    assert rows == [
        ["A", "at least 4 ×", "3 ×", "2 … 5", "missed", ""],
        ["B", "at least 4 ×", "not measured", "", "", "no GPU"],
    ]


def test_the_share_of_the_peak_is_that_of_the_operations():
    seconds_of_products = [1.0, 2.0]
    operations = harness.PRODUCTS * 2 * harness.PRODUCT_SIDE**3
    assert harness.share_of_peak(operations / 2, [0.5, 1.0], seconds_of_products) == [100.0, 50.0]
