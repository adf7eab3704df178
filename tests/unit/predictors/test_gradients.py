"""Predictors from gradients: what one pass finds equals what autograd finds image by image, batch by batch."""

import copy

import numpy as np
import pytest
import torch
from predictor_tasks import task_of, values
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_vit import VARIANTS, small_vit
from torch.nn import functional

from vit_plasticity import predictors, vit
from vit_plasticity.predictors import gradients, load, points
from vit_plasticity.predictors.fitted_head import fit, held_out_loss
from vit_plasticity.predictors.gradients import Gradient
from vit_plasticity.predictors.one_step_gain import STEPS, steps


@pytest.mark.parametrize("n_classes", [2, 3])
def test_fitted_head_is_the_regression_on_what_it_reads(n_classes):
    random = np.random.default_rng(0)
    features = random.normal(3, 2, (60, 7)) * np.arange(1, 8)
    features[:, 4] = 5.0  # a feature that never changes
    labels = np.arange(60) % n_classes
    features[:, 0] += 9 * labels
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000)).fit(features, labels)
    weight, bias = fit(features, labels, n_classes)
    probabilities = torch.softmax(torch.tensor(features @ weight.T + bias), dim=1).numpy()
    np.testing.assert_allclose(probabilities, expected.predict_proba(features), atol=1e-6)


def test_a_class_without_images_cannot_be_fitted():
    with pytest.raises(ValueError, match="class 1 has no training image"):
        fit(np.eye(4), np.array([0, 2, 0, 2]), 3)


def test_head_sees_the_training_split_alone(model, dataset):
    task = task_of(model, dataset, "mha")
    whole = task.head
    alone = task_of(model, dataset, "mha")
    alone.dataset = copy.copy(dataset)
    object.__setattr__(alone.dataset, "splits", {"train": dataset.split("train")})
    alone.target = None
    assert all(map(torch.equal, whole, alone.head))
    assert [one.tolist() for one in alone.batches] == [one.tolist() for one in task.batches]
    assert alone.gradients.keys() == task.gradients.keys()


def losses(model, head, split, indices):
    """Cross-entropy of each image, by the model's own forward pass with the head put into it."""
    images = points.images(model, split, indices)
    labels = torch.tensor(np.asarray(split.labels)[indices])
    with_head = copy.deepcopy(model)
    vit.new_head(with_head, len(head[1]))
    with torch.no_grad():
        for classifier in vit.family(model).classifiers(with_head):
            for parameter, value in zip(classifier.parameters(), head, strict=True):
                parameter.copy_(value)
    return with_head, functional.cross_entropy(with_head(images), labels, reduction="none")


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS.keys())
def test_one_pass_finds_what_a_pass_for_each_image_finds(change, dataset, monkeypatch):
    monkeypatch.setattr(points, "at_once", lambda model: 4)
    model, split = small_vit(**change), dataset.split("train")
    names = [name for name, _ in model.named_parameters() if not name.startswith(("norm.", "fc_norm.", "head"))]
    head = tuple(0.3 * torch.randn(shape) for shape in ((3, 24), (3,)))
    batches = [np.array([0, 5, 7, 11, 3]), np.array([8, 2, 1])]
    found = gradients.measure(model, head, split, batches, set(names))
    assert found.keys() == {*names}
    with_head, of_images = losses(model, head, split, np.concatenate(batches))
    own = dict(with_head.named_parameters())
    each = [torch.autograd.grad(one, [own[n] for n in names], retain_graph=True) for one in of_images]
    for name, per_image in zip(names, zip(*each, strict=True), strict=True):
        per_image, value = torch.stack(per_image).double(), own[name].detach().double()
        square = per_image.flatten(1).square().sum(dim=1).mean().item()
        mean = per_image.mean(dim=0)
        of_batches = [per_image[:5].mean(dim=0).square().sum().item(), per_image[5:].mean(dim=0).square().sum().item()]
        # A key's bias changes no softmax: its gradient is nothing but rounding.
        assert found[name].square_of_images == pytest.approx(square, rel=1e-3, abs=1e-12), name
        np.testing.assert_allclose(found[name].squares_of_batches, of_batches, rtol=1e-3, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(found[name].mean, mean, atol=1e-5 * mean.abs().max().item() + 1e-7, err_msg=name)
        assert found[name].square_of_values == pytest.approx(value.square().sum().item(), rel=1e-5)
        assert found[name].saliency == pytest.approx((mean * value).abs().sum().item(), rel=1e-3, abs=1e-6)


def test_gradients_leave_the_model_as_it_was(model, dataset):
    model.blocks[0].norm1.weight.requires_grad_(False)
    task = task_of(model, dataset, "mha", "embed")
    before, wanted = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    assert task.gradients
    [*load("one_step_gain")(task)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_parameter_that_no_module_uses_by_itself_gets_a_pass_for_each_image(model, dataset, monkeypatch):
    """As where a family hands a weight to a function: then no hook sees it."""
    split, head = dataset.split("train"), (torch.randn(3, 24), torch.zeros(3))
    names = {"blocks.0.mlp.fc2.weight", "blocks.1.attn.qkv.weight"}
    batches = [np.arange(6)]
    expected = gradients.measure(model, head, split, batches, names)
    layer = model.blocks[0].mlp.fc2
    weight, bias = layer.weight, layer.bias
    model.blocks[0].mlp.fc2 = Bare(weight, bias)
    model.blocks[0].mlp.act = torch.nn.Sequential(model.blocks[0].mlp.act, torch.nn.Identity())
    model.blocks[0].mlp.forward = lambda x, mlp=model.blocks[0].mlp: functional.linear(
        mlp.act(mlp.fc1(x)), weight, bias
    )
    found = gradients.measure(model, head, split, batches, names)
    for name in names:
        assert found[name].square_of_images == pytest.approx(expected[name].square_of_images, rel=1e-4)


class Bare(torch.nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = weight, bias


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (3, 50, 4, 6)])
def test_both_ways_to_the_norm_of_a_weight_gradient(shape):
    images, length, inputs, outputs = shape
    x, g = torch.randn(images, length, inputs), torch.randn(images, length, outputs)
    expected = torch.stack([(b.T @ a).square().sum() for a, b in zip(x, g, strict=True)])
    np.testing.assert_allclose(gradients._of_weight(x, g), expected, rtol=1e-5)


class Known:
    """A task whose gradients are written down: blocks of two values each."""

    def __init__(self, model, components):
        self.model, self.components, self.batches = model, components, [range(2), range(2)]
        values = {
            "blocks.0.norm1.weight": Gradient(torch.ones(3), np.array([9.0, 16.0]), 2.0, 4.0, 5.0),
            "blocks.0.norm1.bias": Gradient(torch.ones(3), np.array([16.0, 0.0]), 3.0, 0.0, 7.0),
            "blocks.1.norm1.weight": Gradient(torch.ones(3), np.array([1.0, 1.0]), 10.0, 1.0, 0.5),
            "blocks.1.norm1.bias": Gradient(torch.ones(3), np.array([0.0, 0.0]), 20.0, 0.0, 0.25),
        }
        self.gradients = values


@pytest.mark.parametrize(
    ("name", "first", "second", "whole"),
    [
        ("gradient_norm", (5 / 2 + 4 / 2) / 2, 1.0, (2.25 + 1.0) / 2),  # gain and bias are one vector
        ("fisher", 5.0, 30.0, 35.0),
        ("fisher_per_parameter", 5 / 6, 30 / 6, 35 / 12),
        ("snip", 12.0, 0.75, 12.75),
    ],
)
def test_by_hand(name, first, second, whole, model, dataset):
    components = task_of(model, dataset, "ln1").components
    found = values(load(name)(Known(model, components)))
    assert found == pytest.approx({("ln1", None): whole, ("ln1", 0): first, ("ln1", 1): second})


def test_where_all_parameters_are_zero_no_relative_norm_exists(model, dataset):
    task = Known(model, task_of(model, dataset, "ln1").components)
    task.gradients["blocks.1.norm1.weight"] = task.gradients["blocks.1.norm1.bias"]
    assert values(load("gradient_norm")(task)) == {("ln1", None): None, ("ln1", 0): 2.25, ("ln1", 1): None}


def test_parameters_are_counted(model, dataset):
    found = values(load("parameters")(task_of(model, dataset, "ln1", "fc1", "embed", "full")))
    counts = {key: round(10**value) for key, value in found.items() if value is not None}
    assert (counts["ln1", None], counts["ln1", 0]) == (2 * 48, 48)
    assert counts["fc1", None] == 2 * (24 * 96 + 96)
    assert ("embed", 0) not in found
    assert counts["embed", None] == 3 * 64 * 24 + 24 + 24 + 5 * 24
    block = 2 * 48 + 4 * 24 * 24 + 4 * 24 + 2 * 24 * 96 + 96 + 24
    assert counts["full", None] == 2 * block + counts["embed", None]
    assert counts["full", 1] == block


def test_parameters_of_adapters_and_masks_are_those_that_train(model, dataset):
    found = values(load("parameters")(task_of(model, dataset, "lora2:mha", "mha~100", "head")))
    counts = {key: round(10**value) for key, value in found.items() if value is not None}
    adapters = 2 * (24 + 3 * 24) + 2 * (24 + 24)
    assert counts == {
        ("lora2:mha", None): 2 * adapters, ("lora2:mha", 0): adapters, ("lora2:mha", 1): adapters,
        ("mha~100", None): 200, ("mha~100", 0): 100, ("mha~100", 1): 100,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["gradient_norm", "fisher", "snip", "one_step_gain"])
def test_gradients_of_whole_tensors_say_nothing_of_adapters_and_masks(name, model, dataset):
    found = values(load(name)(task_of(model, dataset, "lora2:mha", "mha~100", "head", "ln1")))
    nulls = {key for key, value in found.items() if value is None}
    assert nulls == {("lora2:mha", None), ("mha~100", None), ("head", None)}
    assert found["ln1", None] is not None


@pytest.mark.parametrize("name", [name for name, trains in predictors.known().items() if not trains])
def test_no_predictor_is_all_zeros(name, model, dataset):
    """With the zero head that fine-tuning starts from, every gradient is exactly zero."""
    vit.new_head(model, 3)
    found = [value for value in values(load(name)(task_of(model, dataset, "ln1", "mha", "fc2"))).values()]
    assert len(found) >= 3
    assert all(value is not None and abs(value) > 1e-9 for value in found)


def test_one_step_gain_is_the_largest_decrease_over_the_steps(model, dataset):
    task = task_of(model, dataset, "fc2", "ln1")
    images, before = task.held_out
    assert sorted(images) == list(range(12))
    assert before == pytest.approx(losses(model, task.head, dataset.split("val"), images)[1].mean().item(), rel=1e-5)
    gains = []
    own = task.components[0].parameters(model)
    start = torch.cat([p.detach().flatten() for p in own.values()]).clone()
    direction = torch.cat([task.gradients[name].mean.flatten() for name in own])
    for share in steps(task, task.components[0]):
        moved = torch.cat([p.detach().flatten() for p in own.values()]) - start
        assert moved.norm().item() == pytest.approx(share * start.norm().item(), rel=1e-3)
        assert functional.cosine_similarity(moved, -direction, dim=0).item() == pytest.approx(1, abs=1e-3)
        gains.append(before - held_out_loss(model, task.head, dataset.split("val"), images))
    found = {row["component"]: row["value"] for row in load("one_step_gain")(task)}
    assert len(gains) == len(STEPS) == 5
    assert found["fc2"] == pytest.approx(max(gains))


def test_a_step_on_the_training_images_themselves_lowers_their_loss(model, dataset):
    """To first order by the step times the norm of the gradient, which a small step shows."""
    task = task_of(model, dataset, "fc1", batches=6, batch_size=10)
    own = task.components[0].parameters(model)
    split, indices = dataset.split("train"), np.concatenate(task.batches)
    before = held_out_loss(model, task.head, split, indices)
    size = sum(p.detach().square().sum().item() for p in own.values()) ** 0.5
    norm = sum(task.gradients[name].mean.square().sum().item() for name in own) ** 0.5
    share = next(iter(walk := steps(task, task.components[0])))
    gain = before - held_out_loss(model, task.head, split, indices)
    walk.close()
    assert gain == pytest.approx(share * size * norm, rel=0.1)
