"""Training and evaluation images, per core: against PIL and torchvision, one image after the other."""

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks import ROOT, plain
from benchmarks.harness import at_least, at_most, gpu, interleaved, not_measured, ratios, stated
from vit_plasticity import vit
from vit_plasticity.data import batches
from vit_plasticity.data.images import read_image
from vit_plasticity.data.registry import Images, Split
from vit_plasticity.runtime.device import select_device
from vit_plasticity.study.config import settings
from vit_plasticity.training import step as training

BATCH = 64


def measure():
    select_device("cpu", threads=1)
    results = [
        from_small(side=224, interpolation="bicubic", repetitions=8),
        from_small(side=32, interpolation="bilinear", repetitions=30),
        *from_photos(repetitions=8),
        share_of_step("cpu", "the demo study's model, batch 32", demo_model, batch_size=32, side=32),
    ]
    if device := gpu():
        share = functools.partial(share_of_step, device, batch_size=512, precision="bf16")
        results.append(share("ViT-Base, batch 512, bf16, from 32², on the GPU", vit_base, side=32))
        results.append(share("ViT-Base, batch 512, bf16, from photographs, on the GPU", vit_base, side=None))
    else:
        results.append(not_measured("Data in a training step, ViT-Base, batch 512, on a GPU", "at most 10 %"))
    return results


def preprocessing(size, interpolation):
    half = (0.5, 0.5, 0.5)
    return vit.Preprocessing(size, half, half, interpolation, size / 256 if size == 224 else 1.0)


def batches_of(split, wanted, batch_size, device="cpu", threads=1):
    return batches.TrainingBatches(
        split, b"benchmark", wanted, batch_size=batch_size, crop_scale=(0.08, 1.0), flip=True, device=device,
        threads=threads,
    )  # fmt: skip


def small_split(n=1024):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return Split(Images(pixels), np.arange(n) % 10)


def from_small(side, interpolation, repetitions):
    split, transform = small_split(), plain.training_transform(side, interpolation)
    ours = batches_of(split, preprocessing(side, interpolation), BATCH)
    steps = iter(range(10**6))

    def plainly(n_steps=4):  # small batches are made four at once
        for _ in range(n_steps):
            plain.batch_of_arrays(split.images.uniform[:BATCH], transform)

    def by_us(n_steps=4):
        for _ in range(n_steps):
            ours(next(steps))

    seconds = interleaved(repetitions, {"plain": plainly, "ours": by_us}, warm_up=1)
    what = f"Training images from 32² to {side}², {interpolation}"
    return at_least(what, 4, ratios(seconds, "plain", "ours"), note=_per_image(seconds, 4 * BATCH))


def from_photos(repetitions):
    """Photographs of 500 by 375 pixels: JPEG files for the baseline, prepared pixels for us."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_photos(Path(folder), BATCH)
        split, wanted = photo_split(files), preprocessing(224, "bicubic")
        ours, steps = batches_of(split, wanted, BATCH), iter(range(10**6))
        transform = plain.training_transform(224, "bicubic")
        seconds = interleaved(
            repetitions,
            {"plain": lambda: plain.batch_of_files(files, transform), "ours": lambda: ours(next(steps))},
        )
        training_result = at_least(
            "Training images from photographs", 2.5, ratios(seconds, "plain", "ours"), note=_per_image(seconds, BATCH)
        )
        transform = plain.evaluation_transform(224, 256, "bicubic")
        kept = batches.evaluation_pixels(split.images, wanted)
        seconds = interleaved(
            repetitions,
            {
                "plain": lambda: plain.batch_of_files(files, transform),
                "ours": lambda: batches.normalise(kept, wanted),
                "first": lambda: batches.normalise(batches.evaluation_pixels(split.images, wanted), wanted),
            },
        )
    what = "Evaluation images from photographs"
    return [
        training_result,
        at_least(f"{what}, kept since the first evaluation", 8, ratios(seconds, "plain", "ours")),
        stated(f"{what}, at the first evaluation", ratios(seconds, "plain", "first"), "×"),
    ]


def write_photos(folder, n):
    """JPEG files cut from scikit-learn's two photographs."""
    random, photos = np.random.default_rng(0), load_sample_images().images
    files = []
    for i in range(n):
        photo = photos[i % len(photos)]
        top, left = (random.integers(0, side - wanted) for side, wanted in zip(photo.shape, (375, 500), strict=False))
        files.append(folder / f"{i}.jpg")
        Image.fromarray(photo[top : top + 375, left : left + 500]).save(files[-1], quality=90)
    return files


def photo_split(files):
    """The photographs as `fetch` stores them: shorter side 256."""
    arrays = [read_image(file, 256) for file in files]
    shapes = np.array([array.shape[:2] for array in arrays], dtype=np.int32)
    return Split(Images(np.concatenate([a.reshape(-1) for a in arrays]), shapes), np.arange(len(files)) % 10)


def demo_model():
    given = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["pretrain"]
    return vit.new_model(settings("pretrain", json.dumps(given)), 10)


def vit_base():
    import timm

    return timm.create_model("vit_base_patch16_224", num_classes=10)


def share_of_step(device, what, make, *, batch_size, side, precision="fp32"):
    """Seconds of making batches, over those of whole steps with them; eight steps, for small batches are made so at
    once."""
    device = torch.device(device)
    model = vit.prepare(make().to(device)).train()
    wanted = preprocessing(model.patch_embed.img_size[0], "bilinear")
    with tempfile.TemporaryDirectory() as folder:
        split = small_split() if side else photo_split(write_photos(Path(folder), batch_size))
    ours, steps = batches_of(split, wanted, batch_size, device, threads=8), iter(range(10**6))
    optimizer = training.make_optimizer(model.parameters(), "sgd", 0.01)
    fixed = ours(next(steps))

    def step(images, labels):
        training.step(model, optimizer, images, labels, lr=0.01, clip_norm=1.0, precision=precision)

    functions = {
        "without": lambda: [step(*fixed) for _ in range(8)],
        "with": lambda: [step(*ours(next(steps))) for _ in range(8)],
    }
    seconds = interleaved(20 if device.type == "cpu" else 5, functions, device, warm_up=1)
    shares = [100 * max(0.0, b - a) / b for a, b in zip(seconds["without"], seconds["with"], strict=True)]
    return at_most(f"Data in a training step, {what}", 10, shares, unit="%")


def _per_image(seconds, images):
    return (
        ", ".join(f"{1e3 * sorted(s)[len(s) // 2] / images:.2f} ms {name}" for name, s in seconds.items()) + " an image"
    )
