"""Rates in situ: what forward hooks on the model see, in every kind of model, and what has none."""

import functools

import pytest
import torch
from small_vit import VARIANTS, small_vit

from vit_plasticity import vit
from vit_plasticity.predictors import in_situ, plasticity, points
from vit_plasticity.vit.components import MEASURABLE


def pairs(n=5):
    return torch.randn(2, n, 3, 16, 16, generator=torch.Generator().manual_seed(0)).unbind(0)


def seen_by_hooks(model, images, component):
    """Inputs and outputs of a component in every block, as the model itself computes them."""
    seen, handles = [[] for _ in model.blocks], []
    for calls, block in zip(seen, model.blocks, strict=True):
        for part in vit.family(model).parts(block, component):
            note = functools.partial(lambda calls, _, inputs, output: calls.append((inputs[0], output)), calls)
            handles.append(part.register_forward_hook(note))
    with torch.inference_mode():
        model(images)
    for handle in handles:
        handle.remove()
    return [(calls[0][0], torch.cat([output for _, output in calls], dim=-1)) for calls in seen]


def norm(tokens):
    return tokens.double().flatten(1).norm(dim=1)


@pytest.mark.parametrize("component", MEASURABLE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_changes_are_those_that_hooks_see(variant, component, monkeypatch):
    monkeypatch.setattr(points, "at_once", lambda model: 2)
    model, (source, target) = small_vit(**VARIANTS[variant]), pairs()
    rates, elasticities = [], []
    seen = [seen_by_hooks(model, images, component) for images in (source, target)]
    for (x, fx), (y, fy) in zip(*seen, strict=True):
        rates.append(norm(fx - fy) / norm(x - y))
        elasticities.append((norm(fx - fy) / norm(fx)) / (norm(x - y) / norm(x)))
    assert len(rates) == 2
    found = in_situ.rates_of_change(model, source, target, component)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.stack(rates), rtol=1e-5, atol=0)
    found = in_situ.changes(model, source, target)[component].elasticities
    torch.testing.assert_close(found, torch.stack(elasticities), rtol=1e-5, atol=0)


def test_the_first_norm_receives_the_embedding(model):
    """Only there are the two definitions one, and there they must agree."""
    found = in_situ.rates_of_change(model, *pairs(), "ln1")
    torch.testing.assert_close(found[0], plasticity.rates_of_change(model, *pairs(), "ln1")[0], rtol=1e-5, atol=0)
    assert not torch.allclose(found[1], plasticity.rates_of_change(model, *pairs(), "ln1")[1], rtol=1e-2)


def test_elasticity_of_a_layer_that_only_scales_is_one(model):
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc1.weight.copy_(3 * torch.eye(96, 24))
            block.mlp.fc1.bias.zero_()
    found = in_situ.changes(model, *pairs(), ("fc1",))["fc1"]
    torch.testing.assert_close(found.rates, torch.full((2, 5), 3.0, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.elasticities, torch.ones(2, 5, dtype=torch.float64), rtol=1e-6, atol=0)


def test_what_has_no_rate_is_refused(model):
    source, target = pairs()
    with pytest.raises(ValueError, match="no rate of change is defined for 'full'"):
        in_situ.rates_of_change(model, source, target, "full")
    with pytest.raises(ValueError, match="must agree"):
        in_situ.rates_of_change(model, source, target[:2], "fc1")
    with pytest.raises(ValueError, match="the same input"):
        in_situ.rates_of_change(model, source, source, "fc1")
