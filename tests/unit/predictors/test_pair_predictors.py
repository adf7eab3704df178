"""Predictors in situ over pairs and images: means of the right numbers, intervals, closed forms."""

import numpy as np
import pytest
import torch
from predictor_tasks import task_of, values
from small_vit import VARIANTS, as_called, small_vit

from vit_plasticity import vit
from vit_plasticity.predictors import in_situ, load, points
from vit_plasticity.predictors.local_plasticity import squared_gains
from vit_plasticity.runtime.intervals import image_interval
from vit_plasticity.vit.components import MEASURABLE


@pytest.mark.parametrize(
    ("name", "of"),
    [("plasticity_in_situ", lambda found: found.rates), ("elasticity", lambda found: found.elasticities)],
)
def test_means_over_the_pairs_of_plasticity(name, of, model, dataset):
    task = task_of(model, dataset, "mha", "ln2@1", "full", pairs=40, seed=3)
    rows = [*load(name)(task)]
    source, target = points.pair_indices(60, 30, task.settings)
    x, y = points.images(model, task.source, source), points.images(model, task.target, target)
    rates = of(in_situ.changes(model, x, y, ("mha",))["mha"]).numpy()
    found = values(rows)
    assert set(found) == {("mha", None), ("mha", 0), ("mha", 1), ("ln2@1", None), ("ln2@1", 1)}
    expected = image_interval(np.stack([rates.mean(axis=0), rates[0], rates[1]]), source, target, 0.95)
    got = [[row[key] for row in rows[:3]] for key in ("value", "ci_low", "ci_high")]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert all(row["n"] == 40 for row in rows)


def test_longer_measurements_begin_with_the_same_pairs(model, dataset):
    few, many = (task_of(model, dataset, "fc1", pairs=n).pairs for n in (40, 200))
    for short, long in zip(few, many, strict=True):
        assert np.array_equal(short, long[:40])


def test_one_sample_on_both_sides_has_no_pair_of_one_image(model, dataset):
    task = task_of(model, dataset, "fc1")
    task.source, task.same_images = task.target, True
    source, target = task.pairs
    assert (source != target).all()
    rows = [*load("plasticity_in_situ")(task)]
    expected = image_interval(task.changes["fc1"].rates.numpy()[0], source, target, 0.95, same_images=True)
    assert (rows[1]["value"], rows[1]["ci_low"], rows[1]["ci_high"]) == pytest.approx(expected)


def images(model, dataset, n=6):
    return points.images(model, dataset.split("train"), np.arange(n))


@pytest.mark.parametrize("component", ["fc1", "fc2"])
def test_local_plasticity_of_a_linear_layer_has_a_closed_form(component, model, dataset):
    """‖W‖_F / √D: each of 200 directions estimates it without bias."""
    ((_, found),) = squared_gains(model, images(model, dataset), [component], 200, 0)
    for block, squares in zip(model.blocks, found, strict=True):
        weight = vit.family(model).parts(block, component)[0].weight.detach()
        expected = weight.double().square().sum().item() / weight.shape[1]
        np.testing.assert_allclose(squares, expected, rtol=0.15)
        assert squares.mean().item() == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("component", ["ln1", "mha", "ln2", "fc1"])
@pytest.mark.parametrize("variant", ["vit", "dinov3 with swiglu", "rotations by block", "beit"])
def test_local_plasticity_is_the_norm_of_the_whole_jacobian(variant, component, dataset):
    model = small_vit(**VARIANTS[variant])
    some = images(model, dataset, 2)
    ((_, found),) = squared_gains(model, some, [component], 400, 0)
    tokens = vit.embed(model, some).detach()
    parts, received = as_called(model, component), vit.family(model).inputs(model, tokens)
    for index, (part, inputs) in enumerate(zip(parts, received, strict=True)):
        for image in range(2):
            x = inputs[component][image : image + 1].detach()
            jacobian = torch.autograd.functional.jacobian(part, x)
            expected = jacobian.double().square().sum().item() / x.numel()
            assert found[index, image].item() == pytest.approx(expected, rel=0.15)


def test_local_plasticity_is_the_root_of_the_mean_over_images(model, dataset):
    task = task_of(model, dataset, *MEASURABLE, "mha@0", local_images=20)
    rows = [*load("local_plasticity")(task)]
    found = values(rows)
    assert all(value > 0 for value in found.values())
    assert len(found) == 5 * 3 + 2
    assert found["mha", None] == pytest.approx(np.sqrt((found["mha", 0] ** 2 + found["mha", 1] ** 2) / 2))
    assert found["mha@0", None] == found["mha@0", 0] == found["mha", 0]
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] and row["n"] == 20 for row in rows)
    weight = model.blocks[0].mlp.fc1.weight.detach()
    assert found["fc1", 0] == pytest.approx((weight.norm() / 24**0.5).item(), rel=0.1)


def test_local_plasticity_sees_no_test_image(model, dataset):
    task = task_of(model, dataset, "fc1", "mha")
    before = [*load("local_plasticity")(task)]
    del task.dataset.splits["test"], task.dataset.splits["val"]
    task = task_of_training_images_alone(task)
    assert [*load("local_plasticity")(task)] == before


def task_of_training_images_alone(task):
    task.parts.clear()
    task.target = task.source = None
    return task
