"""Upper bounds: the formulas of the paper, computed another way and by hand."""

import math

import numpy as np
import pytest
import torch

from vit_plasticity import bounds, plasticity, vit
from vit_plasticity.data import batches


def test_layer_norm_bound_is_the_largest_gain_in_absolute_value(model):
    with torch.no_grad():
        model.blocks[0].norm1.weight[:] = 0.5
        model.blocks[0].norm1.weight[3] = -4.0
    assert bounds.upper_bounds(model, "ln1")[0] == 4.0


@pytest.mark.parametrize("component", ["fc1", "fc2"])
def test_linear_bound_is_the_largest_singular_value(component, model):
    expected = [
        np.linalg.svd(vit.family(model).part(b, component).weight.detach().double())[1].max() for b in model.blocks
    ]
    np.testing.assert_allclose(bounds.upper_bounds(model, component), expected, rtol=1e-9)


def test_attention_bound_by_hand(model):
    """Multiples of the identity as queries, keys, values and outputs have singular values known at sight."""
    attention = model.blocks[0].attn  # two heads of width 12, embedding width 24
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.cat([2 * torch.eye(24), 3 * torch.eye(24), 5 * torch.eye(24)]))
        attention.proj.weight.copy_(7 * torch.eye(24))
    n, r = 5, 1.5
    head = 7 * 5 * math.sqrt(3 * n + (12 * n + 3) * r**4 * (2 * 3 / math.sqrt(12)) ** 2)
    assert bounds.upper_bounds(model, "mha", r)[0].item() == pytest.approx(2 * head, rel=1e-9)


def test_attention_bound_equals_the_formula_with_full_products(model):
    attention, n, r = model.blocks[1].attn, 5, 0.7
    q, k, v = attention.qkv.weight.detach().double().numpy().reshape(3, 2, 12, 24)
    o = attention.proj.weight.detach().double().numpy().reshape(24, 2, 12)
    expected = sum(
        np.linalg.norm(o[:, h], 2)
        * np.linalg.norm(v[h], 2)
        * math.sqrt(3 * n + (12 * n + 3) * r**4 * np.linalg.norm(q[h].T @ k[h] / math.sqrt(12), 2) ** 2)
        for h in range(2)
    )
    assert bounds.upper_bounds(model, "mha", r)[1].item() == pytest.approx(expected, rel=1e-9)


def test_token_norm_is_a_root_mean_square_over_tokens_and_images(model, dataset):
    split = dataset.split("test")
    preprocessing = vit.preprocessing(model)
    tokens = vit.embed(model, batches.normalise(batches.evaluation_pixels(split.images, preprocessing), preprocessing))
    expected = math.sqrt(tokens.double().square().sum(dim=2).mean().item())
    assert bounds.root_mean_square_token_norm(model, split, 1000) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("component", ["fc1", "fc2"])
def test_measured_rates_stay_below_linear_bounds(component, model):
    source, target = torch.randn(2, 8, 3, 16, 16)
    rates = plasticity.rates_of_change(model, source, target, component)
    assert (rates <= bounds.upper_bounds(model, component)[:, None]).all()


def test_unknown_component_is_refused(model):
    with pytest.raises(ValueError, match="no bound is known"):
        bounds.upper_bounds(model, "full")
