"""One step and one evaluation: schedule, accumulation, frozen parameters, exact accuracy."""

import copy
import resource
import shutil
import sys

import numpy as np
import pytest
import torch

from vit_plasticity import vit
from vit_plasticity.data import batches
from vit_plasticity.training import step as training


def test_learning_rate_by_hand():
    rates = [training.learning_rate(step, 10, 2, 0.8) for step in range(10)]
    assert rates[:3] == pytest.approx([0.4, 0.8, 0.8])
    assert rates[6] == pytest.approx(0.4)  # half way down the cosine
    assert rates[9] == pytest.approx(0.8 * (1 + np.cos(np.pi * 7 / 8)) / 2)
    assert training.learning_rate(0, 10, 0, 0.8) == 0.8
    from_zero = [training.learning_rate(step, 10, 2, 0.8, warmup_from=0) for step in range(10)]
    assert from_zero[:3] == pytest.approx([0, 0.4, 0.8]) and from_zero[2:] == rates[2:]
    assert training.learning_rate(9, 10, 100, 0.8) == pytest.approx(0.08)  # a warm-up longer than the run


def data(n=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, 16, 16, generator=generator), torch.arange(n) % 3


def stepped(model, compiled=False, **changes):
    model = copy.deepcopy(model)
    if compiled:
        vit.compile_blocks(model)
    names = vit.train_only(model, "fc1")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = training.make_optimizer(parameters, "sgd", 0.1)
    out = training.step(model, optimizer, *data(), lr=0.1, **{"clip_norm": 1.0} | changes)
    return model, names, out


def test_accumulation_does_not_change_the_step(model):
    (whole, _, (loss, norm)), (parts, _, (loss4, norm4)) = stepped(model), stepped(model, accumulation=4)
    torch.testing.assert_close(loss, loss4)
    torch.testing.assert_close(norm, norm4)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_recomputing_blocks_does_not_change_the_step(model):
    for a, b in zip(stepped(model)[0].parameters(), stepped(model, recompute=True)[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiling_blocks_does_not_change_the_step(model, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    frames = torch._dynamo.utils.counters["frames"]
    before = frames["ok"]
    compiled = stepped(model, compiled=True)[0]
    assert frames["ok"] > before, "nothing was compiled"
    for a, b in zip(stepped(model)[0].parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    before = frames["ok"]
    pixels, labels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)
    training.evaluate(compiled, pixels, labels, vit.preprocessing(model), batch_size=3)
    assert frames["ok"] == before, "evaluation was compiled too"


def test_only_what_trains_moves_and_has_a_gradient(model):
    after, names, _ = stepped(model)
    for (name, old), new in zip(model.named_parameters(), after.parameters(), strict=True):
        assert (new.grad is not None) == (name in names)
        assert torch.equal(old, new) == (name not in names), name


def test_clipping_bounds_the_step(model):
    """Without momentum yet, the first step of SGD has length lr x clip norm."""
    after, _, (_, norm) = stepped(model, clip_norm=1e-3)
    assert norm > 1e-3
    moved = sum((a - b).square().sum() for a, b in zip(model.parameters(), after.parameters(), strict=True)).sqrt()
    assert moved.item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_loss_is_the_mean_cross_entropy(model):
    images, labels = data()
    expected = torch.nn.functional.cross_entropy(model(images), labels)
    torch.testing.assert_close(stepped(model)[2][0], expected.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 100])
def test_evaluation_counts_every_image_once(model, dataset, batch_size):
    preprocessing, split = vit.preprocessing(model), dataset.split("test")
    pixels, labels = batches.evaluation_pixels(split.images, preprocessing), torch.tensor(split.labels)
    with torch.no_grad():
        logits = model(batches.normalise(pixels, preprocessing))
    model.train()
    loss, accuracy, _ = found = training.evaluate(model, pixels, labels, preprocessing, batch_size=batch_size)
    assert found == training.evaluate(model, split.images, split.labels, preprocessing, batch_size=batch_size)
    assert accuracy == (logits.argmax(dim=1) == labels).sum().item() / 30
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert model.training


def test_balanced_accuracy_counts_classes_alike(model, dataset):
    preprocessing, split = vit.preprocessing(model), dataset.split("test")
    pixels = batches.evaluation_pixels(split.images, preprocessing)
    answers = model(batches.normalise(pixels, preprocessing)).argmax(dim=1)
    labels = torch.where(torch.arange(30) < 24, answers, (answers + 1) % 3)  # the first 24 are right
    found = training.evaluate(model, pixels, labels, preprocessing)
    shares = [(answers == labels)[labels == k].double().mean().item() for k in labels.unique()]
    assert found.balanced_accuracy == pytest.approx(sum(shares) / len(shares))


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_gradient_norm_of_the_component_is_that_before_clipping(model, clip_norm):
    expected = [p.grad for n, p in stepped(model, clip_norm=1e9)[0].named_parameters() if ".fc1." in n]
    after, _, (_, norm) = stepped(model, clip_norm=clip_norm)
    own = [p for n, p in after.named_parameters() if ".fc1." in n]
    expected = torch.cat([g.flatten() for g in expected]).norm()
    torch.testing.assert_close(training.component_norm(own, norm, clip_norm), expected, rtol=1e-4, atol=0)
    assert training.component_norm([], norm, clip_norm).isnan()


def test_peak_memory_starts_anew():
    """Of a CPU: what was given back before the reset does not count."""
    device = torch.device("cpu")
    torch.ones(100_000_000)
    training.reset_peak_memory(device)
    before = training.peak_memory_mb(device)
    torch.ones(50_000_000)
    assert before + 150 < training.peak_memory_mb(device) < before + 300


def test_unknown_optimizer_is_refused(model):
    with pytest.raises(ValueError, match="choose from sgd, adamw"):
        training.make_optimizer(model.parameters(), "adam", 0.1)


def test_bf16_is_close_to_fp32(model):
    (_, _, (loss, _)), (_, _, (half, _)) = stepped(model), stepped(model, precision="bf16")
    torch.testing.assert_close(loss, half, rtol=0.05, atol=0)


def test_peak_memory_is_in_the_same_unit_where_the_system_counts_bytes(monkeypatch):
    reported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(sys, "platform", "darwin")
    assert training.peak_memory_mb(torch.device("cpu")) == pytest.approx(reported / 1e6, rel=0.5)
