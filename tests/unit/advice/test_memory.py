"""Estimated memory: what must grow with what, and by how much."""

from small_vit import small_vit

from vit_plasticity import vit
from vit_plasticity.advice import memory


def values(model):
    return sum(p.numel() for p in model.parameters())


def test_memory_is_weights_gradients_states_and_activations():
    model = small_vit()
    full = memory.estimate(model, "full", 8)
    other = memory.estimate(model, "full", 8, optimizer="adamw")
    assert other - full == 4 * values(model)
    assert full > 4 * 3 * values(model)
    activations = full - 4 * 3 * values(model)
    assert memory.estimate(model, "full", 16) - 4 * 3 * values(model) == 2 * activations


def test_a_part_needs_less_than_all():
    model = small_vit()
    assert memory.estimate(model, "ln1", 8) < memory.estimate(model, "mha", 8) < memory.estimate(model, "full", 8)


def test_what_trains_is_left_as_it_was():
    model = small_vit()
    names = vit.train_only(model, "fc1")
    memory.estimate(model, "mha", 4)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == names
