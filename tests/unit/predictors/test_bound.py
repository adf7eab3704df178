"""Upper bounds: the formulas of the paper, computed another way and by hand, and bounds that no rate exceeds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from predictor_tasks import task_of, values
from small_vit import small_vit

from vit_plasticity import vit
from vit_plasticity.predictors import load, plasticity, points
from vit_plasticity.predictors.bound import attention_bound, paper_bounds
from vit_plasticity.predictors.bound_holding import holding_bounds
from vit_plasticity.vit.components import MEASURABLE
from vit_plasticity.vit.families import Attention


def test_layer_norm_bound_is_the_largest_gain_in_absolute_value(model):
    with torch.no_grad():
        model.blocks[0].norm1.weight[:] = 0.5
        model.blocks[0].norm1.weight[3] = -4.0
    assert paper_bounds(model, "ln1", None)[0] == 4.0


@pytest.mark.parametrize("component", ["fc1", "fc2"])
def test_linear_bound_is_the_largest_singular_value(component, model):
    weights = [vit.family(model).parts(block, component)[0].weight.detach().double() for block in model.blocks]
    expected = [np.linalg.svd(weight)[1].max() for weight in weights]
    np.testing.assert_allclose(paper_bounds(model, component, None), expected, rtol=1e-9)


def test_attention_bound_by_hand(model):
    """Multiples of the identity as queries, keys, values and outputs have singular values known at sight."""
    attention = model.blocks[0].attn  # two heads of width 12, embedding width 24
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.cat([2 * torch.eye(24), 3 * torch.eye(24), 5 * torch.eye(24)]))
        attention.proj.weight.copy_(7 * torch.eye(24))
    n, r = 5, 1.5
    head = 7 * 5 * math.sqrt(3 * n + (12 * n + 3) * r**4 * (2 * 3 / math.sqrt(12)) ** 2)
    assert paper_bounds(model, "mha", r)[0] == pytest.approx(2 * head, rel=1e-9)


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
    assert paper_bounds(model, "mha", r)[1] == pytest.approx(expected, rel=1e-9)


def test_a_bias_of_the_queries_is_one_more_coordinate():
    """The formula for tokens with one more coordinate, a constant, at the best of those tried."""
    q, k, v, o = torch.randn(4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bias, r, n = torch.arange(6.0), 2.0, 5
    found = attention_bound(Attention(q, k, v, o, 1, bias), n, r, biased=True)
    tried = []
    for share in (0.1, 0.2, 0.35, 0.5, 0.7, 1.0):
        longer = np.hstack([q.numpy(), bias.double().numpy()[:, None] / (share * r)])
        scores = np.linalg.norm(longer.T @ k.numpy(), 2) / math.sqrt(6)
        tried.append(math.sqrt(3 * n + (12 * n + 3) * (r * r * (1 + share**2)) ** 2 * scores**2))
    assert found == pytest.approx(np.linalg.norm(o, 2) * np.linalg.norm(v, 2) * min(tried), rel=1e-9)
    without = attention_bound(Attention(q, k, v, o, 1, bias), n, r)
    assert without == attention_bound(Attention(q, k, v, o, 1), n, r, biased=True) < found


def test_token_sizes(model, dataset):
    """The root mean square over the source alone, the extremes over both, variances of patch tokens."""
    source, target = dataset.split("train"), dataset.split("test")
    found = points.token_sizes(model, (source, [3, 1, 8]), [(target, [0, 2])], batch=2)
    x, y = (
        vit.embed(model, points.images(model, s, i)).detach().double()
        for s, i in ((source, [3, 1, 8]), (target, [0, 2]))
    )
    assert found.root_mean_square == pytest.approx(x.square().sum(dim=2).mean().sqrt().item(), rel=1e-6)
    assert found.largest_norm == pytest.approx(torch.cat([x, y]).norm(dim=2).max().item(), rel=1e-6)
    patches = torch.cat([x, y])[:, 1:]
    assert found.smallest_variance == pytest.approx(patches.var(dim=2, correction=0).min().item(), rel=1e-6)
    assert found.n == 5


def test_a_bound_holds_where_the_papers_does_not(model, dataset):
    """Short tokens: LayerNorm stretches them beyond its largest gain."""
    with torch.no_grad():
        for tensor in (model.patch_embed.proj.weight, model.patch_embed.proj.bias, model.pos_embed):
            tensor.mul_(0.01)
    task = task_of(model, dataset, "ln1")
    paper, holding = (values(load(name)(task)) for name in ("bound", "bound_holding"))
    (measured,) = plasticity.measure(model, task.source, [(task.target, False)], "ln1", one_measurement(task))
    assert (measured.rates.min(axis=1) > paper["ln1", 0]).all()
    assert measured.rates[0].max() <= holding["ln1", 0]
    assert measured.rates[1].max() <= holding["ln1", 1]


def one_measurement(task):
    task.settings.relative_width = 0
    return task.settings


@settings(max_examples=40, deadline=None)
@given(
    component=st.sampled_from(MEASURABLE),
    seed=st.integers(0, 100),
    size=st.sampled_from([0.01, 0.3, 1, 5]),
    bias=st.sampled_from([0, 1, 20]),
    variant=st.sampled_from([{}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 3}, {"pre_norm": True}]),
)
def test_no_rate_exceeds_the_bound_that_holds(component, seed, size, bias, variant):
    """Whatever the size of tokens, weights and biases, and however alike the images."""
    generator = torch.Generator().manual_seed(seed)
    model = small_vit(**variant)
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (bias if parameter.ndim == 1 else 0.3))
        model.patch_embed.proj.weight.mul_(size)
        model.pos_embed.mul_(size)
    source = torch.randn(8, 3, 16, 16, generator=generator)
    target = source + 10.0 ** -torch.arange(8)[:, None, None, None] * torch.randn(source.shape, generator=generator)
    tokens = torch.cat([vit.embed(model, images).detach().double() for images in (source, target)])
    prefix = vit.family(model).n_tokens(model)[0]
    patches = tokens[:, prefix:].var(dim=2, correction=0)
    sizes = points.Tokens(0.0, tokens.norm(dim=2).max().item(), patches.min().item(), 16)
    bounds = torch.tensor(holding_bounds(model, component, sizes))[:, None]
    rates = plasticity.rates_of_change(model, source[:5], target[:5], component)
    assert (rates <= bounds * (1 + 1e-4)).all()


def test_attention_that_the_formula_does_not_cover_has_no_bound(dataset):
    task = task_of(small_vit(qk_norm=True), dataset, "mha", "fc1")
    for name in ("bound", "bound_holding"):
        found = values(load(name)(task))
        assert all(found["mha", block] is None for block in (None, 0, 1))
        assert all(found["fc1", block] > 0 for block in (None, 0, 1))


def test_rows_are_of_blocks_and_their_mean(model, dataset):
    task = task_of(model, dataset, "fc2", "fc2@1", "mha+fc1", "full", images=10)
    found = values(load("bound")(task))
    assert set(found) == {("fc2", None), ("fc2", 0), ("fc2", 1), ("fc2@1", None), ("fc2@1", 1)}
    assert found["fc2", None] == pytest.approx((found["fc2", 0] + found["fc2", 1]) / 2)
    assert found["fc2@1", None] == found["fc2@1", 1] == found["fc2", 1]
