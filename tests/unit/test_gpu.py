"""Paths that only a GPU takes: `make test-gpu`. Without one they are skipped."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from processes import stage
from small_vit import small_vit

from vit_plasticity import vit
from vit_plasticity.data import batches
from vit_plasticity.data.registry import Images, Split
from vit_plasticity.predictors import in_situ, plasticity
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.training import step
from vit_plasticity.vit.components import MEASURABLE

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.fixture
def gpu():
    return select_device("cuda", 1)


@pytest.fixture
def tf32():
    """TF32 wherever torch would take it, as a program around this package may have chosen."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value


def stream(ragged, device="cpu", threads=2):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 40, 48, 3), dtype=np.uint8)
    shapes = np.tile(np.array([40, 48], dtype=np.int32), (12, 1))
    split = Split(Images(pixels.reshape(-1), shapes) if ragged else Images(pixels), np.arange(12))
    wanted = vit.Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 1.0)
    return batches.TrainingBatches(
        split, b"k", wanted, batch_size=7, crop_scale=(0.1, 1.0), flip=True, device=device, threads=threads
    )


@pytest.mark.parametrize("ragged", [True, False])
def test_batches_made_ahead_are_those_of_their_step_in_any_order(gpu, ragged):
    ahead, on_cpu = stream(ragged, gpu), stream(ragged)
    for wanted in (0, 1, 2, 9, 10, 3):  # a run, one that resumes further on, and one that resumes before
        images, labels = ahead(wanted)
        assert images.is_cuda and labels.is_cuda
        again, labels_again = stream(ragged, gpu)(wanted)
        assert torch.equal(images, again) and torch.equal(labels, labels_again)
        expected, expected_labels = on_cpu(wanted)
        assert torch.equal(labels.cpu(), expected_labels)
        # One grey value, where resizing rounds the other way, of the channel with the smallest deviation.
        torch.testing.assert_close(images.cpu(), expected, rtol=0, atol=1.01 / 255 / 0.2)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 16, 16, generator=generator), torch.randint(0, 3, (6,), generator=generator)


def trained_once(batch, device, precision):
    """Loss, gradient norm, trained values and the type of numbers that a Linear layer gave, after one step."""
    model = vit.prepare(small_vit().to(device)).train()
    vit.train_only(model, "full")
    optimizer = step.make_optimizer(model.parameters(), "sgd", 0.1)
    types = []
    model.blocks[0].mlp.fc1.register_forward_hook(lambda module, received, gave: types.append(gave.dtype))
    images, labels = (tensor.to(device) for tensor in batch)
    loss, norm = step.step(model, optimizer, images, labels, lr=0.1, clip_norm=1.0, precision=precision)
    return loss.item(), norm.item(), torch.cat([p.detach().flatten().cpu() for p in model.parameters()]), types[0]


def test_a_step_in_float32_is_that_of_the_cpu(gpu, batch):
    loss, norm, values, _ = trained_once(batch, gpu, "fp32")
    loss_of_cpu, norm_of_cpu, values_of_cpu, _ = trained_once(batch, "cpu", "fp32")
    assert (loss, norm) == pytest.approx((loss_of_cpu, norm_of_cpu), rel=1e-4)
    torch.testing.assert_close(values, values_of_cpu, rtol=1e-4, atol=1e-5)


def test_bf16_computes_in_bf16_and_keeps_float32(gpu, batch):
    select_device("cuda", 1, precision="bf16")
    loss, norm, values, kind = trained_once(batch, gpu, "bf16")
    exact_loss, exact_norm, exact, kind_of_exact = trained_once(batch, gpu, "fp32")
    assert (kind, kind_of_exact) == (torch.bfloat16, torch.float32)
    assert values.dtype == torch.float32
    assert (loss, norm) == pytest.approx((exact_loss, exact_norm), rel=0.05)
    assert loss != exact_loss
    torch.testing.assert_close(values, exact, rtol=0, atol=0.02)


def test_peak_memory_is_that_since_its_reset(gpu):
    step.reset_peak_memory(gpu)
    before = step.peak_memory_mb(gpu)
    tensor = torch.empty(64 * 10**6, dtype=torch.uint8, device=gpu)
    del tensor
    assert step.peak_memory_mb(gpu) - before == pytest.approx(64, abs=2.1)  # in blocks of 2 MiB
    step.reset_peak_memory(gpu)
    assert step.peak_memory_mb(gpu) == pytest.approx(before, abs=0.1)


@pytest.mark.usefixtures("tf32")
def test_products_keep_all_their_digits_once_a_device_was_selected():
    gpu = select_device("cuda", 1)
    a = torch.randn(512, 512, device=gpu)
    image, kernels = torch.randn(4, 64, 32, 32, device=gpu), torch.randn(64, 64, 3, 3, device=gpu)
    for single, double in (
        (a @ a, a.double() @ a.double()),
        (torch.conv2d(image, kernels), torch.conv2d(image.double(), kernels.double())),
    ):
        assert (single - double).norm() / double.norm() < 1e-5  # TF32: 3e-4


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("component", MEASURABLE)
def test_rates_of_change_are_those_of_the_cpu(component):
    source, target = torch.randn(2, 9, 3, 16, 16)
    gpu = select_device("cuda", 1)
    torch.backends.cudnn.allow_tf32 = True  # again: the embedding is kept exact by the measurement itself
    for measure in (plasticity.rates_of_change, in_situ.rates_of_change):
        exact = measure(small_vit(), source, target, component)
        found = measure(small_vit().to(gpu), source.to(gpu), target.to(gpu), component).cpu()
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=0)


PARAMS = {"lrs": [0.1], "steps": 8, "evaluation_period": 4, "batch_size": 8, "warmup_steps": 2, "precision": "bf16"}


def fine_tuned(folder, model_folder, dataset_folder, *, warm, devices):
    """The one run of a cell, as a job of its own in which these devices are visible."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": devices, "TMPDIR": str(folder)}
    options = {"model": model_folder, "dataset": dataset_folder, "component": "mha", "seed": 0, "device": "auto"}
    options |= {"params": json.dumps(PARAMS), "output": folder / "runs.parquet"}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    folder.mkdir()
    stage("finetune", *arguments, cwd=folder, warm=warm, env=environment)
    return pq.read_table(folder / "runs.parquet", partitioning=None).to_pylist()[0]


def test_a_job_forked_from_the_warm_worker_leases_a_gpu_and_computes_there(
    gpu, warm_worker, model_folder, dataset_folder, tmp_path
):
    # Two names for one GPU: CUDA refuses them both, so that only a job that has taken one finds a GPU.
    leased = fine_tuned(tmp_path / "warm", model_folder, dataset_folder, warm=True, devices="0,0")
    cold = fine_tuned(tmp_path / "cold", model_folder, dataset_folder, warm=False, devices="0")
    assert leased["device"] == cold["device"] == device_name(gpu)
    assert leased["val_accuracy"] == pytest.approx(cold["val_accuracy"], abs=1 / 12)
    assert leased["peak_memory_mb"] == pytest.approx(cold["peak_memory_mb"], rel=0.1)
    assert [path.name for path in tmp_path.glob("warm/vit-plasticity-gpus-*/*")] == ["0"]
    assert not list(tmp_path.glob("cold/vit-plasticity-gpus-*"))
