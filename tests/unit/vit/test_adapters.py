"""Low-rank adapters: what trains, that the model starts as it was, and that they are taken off and put on again."""

import pytest
import torch
from small_vit import small_vit

from vit_plasticity import vit
from vit_plasticity.training import evaluation
from vit_plasticity.vit.components import parse

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
WIDTH, HIDDEN = 24, 96
VALUES = {
    "lora2:mha": 2 * 2 * (WIDTH + 3 * WIDTH + WIDTH + WIDTH),
    "lora2:qkv@1": 2 * (WIDTH + 3 * WIDTH),
    "lora3:fc1+fc2@0": 2 * 3 * (WIDTH + HIDDEN) + 3 * (HIDDEN + WIDTH),
    "lora1:ffn": 2 * 2 * (WIDTH + HIDDEN),
}
"""Values of the adapters, of two blocks: rank times the inputs and outputs of each layer."""


@pytest.mark.parametrize(("component", "values"), VALUES.items())
def test_adapters_train_with_head_and_final_norm_and_nothing_else(component, values):
    model = small_vit()
    before = vit.logits(model, IMAGES)
    names = vit.train_only(model, component)
    own = parse(component).parameters(model)
    assert {*names} == {*own, "norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert sum(p.numel() for p in own.values()) == values
    torch.testing.assert_close(vit.logits(model, IMAGES), before)


def test_adapters_change_the_logits_in_every_block_and_equal_a_merged_layer():
    model = small_vit()
    vit.train_only(model, "lora2:mha")
    adapters = parse("lora2:mha").parameters(model)
    plain = small_vit()
    with torch.no_grad():
        for name, parameter in adapters.items():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
        for name, first in adapters.items():
            if ".lora_A." in name:
                layer = plain.get_submodule(name.split(".lora_A.")[0])
                layer.weight += 2 * adapters[name.replace("lora_A", "lora_B")] @ first
    torch.testing.assert_close(vit.logits(model, IMAGES), vit.logits(plain, IMAGES), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(IMAGES), vit.logits(model, IMAGES), rtol=1e-4, atol=1e-5)


def test_a_restored_model_has_the_adapters_unmerged():
    model = small_vit()
    names = vit.train_only(model, "lora4:mha@1+fc2")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    trained = {name: model.get_parameter(name).detach().clone() for name in names}
    restored = small_vit()
    evaluation.restore(restored, trained, 3)
    assert torch.equal(vit.logits(restored, IMAGES), vit.logits(model, IMAGES))
    own, other = model.state_dict(), restored.state_dict()
    assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


def test_another_component_takes_them_off_and_the_draw_is_the_same_each_time():
    model, names = small_vit(), [name for name, _ in small_vit().named_parameters()]
    state = torch.random.get_rng_state()
    draws = []
    for _ in range(2):
        vit.train_only(model, "lora2:fc1")
        draws.append(model.get_parameter("blocks.1.mlp.fc1.lora_A.default.weight").detach().clone())
        vit.train_only(model, "mha")
        assert [name for name, _ in model.named_parameters()] == names
    assert torch.equal(*draws) and torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ["lora8:ln1", "lora8:full", "lora8:embed", "lora0:mha", "lora:mha", "lora8:qkv+proj",
                                  "lora08:mha", "lora8:mha+lora8:fc1", "lora8:", "lora8:bias"])  # fmt: skip
def test_adapters_of_what_has_no_linear_layers_are_refused(name):
    with pytest.raises(ValueError, match="component"):
        parse(name)
