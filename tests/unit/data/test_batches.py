"""Batches: pure in (dataset, seed, step), crops as torch interpolates them, distributed as torchvision draws them."""

import io
import types

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as transforms
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from vit_plasticity import vit
from vit_plasticity.data import batches, crops
from vit_plasticity.data.registry import Images, Split


def preprocessing(size=16, interpolation="bilinear", crop_share=1.0):
    return vit.Preprocessing(size, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), interpolation, crop_share)


def uniform_split(n=20, height=24, width=20, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    return Split(Images(pixels), np.arange(n) % 4)


def ragged_split(uniform):
    """The same images, stored one after the other."""
    pixels = uniform.images.uniform
    shapes = np.tile(np.array(pixels.shape[1:3], dtype=np.int32), (len(pixels), 1))
    return Split(Images(pixels.reshape(-1), shapes), uniform.labels)


def stream(split, **changes):
    arguments = {"batch_size": 8, "crop_scale": (0.2, 1.0), "flip": True}
    return batches.TrainingBatches(split, b"data 0", preprocessing(), **arguments | changes)


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_a_batch_depends_on_the_step_alone(steps):
    split = uniform_split()
    visited = stream(split)
    for step in steps:
        images, labels = visited(step)
        fresh_images, fresh_labels = stream(split)(step)
        assert torch.equal(images, fresh_images)
        assert torch.equal(labels, fresh_labels)


def test_another_key_gives_other_batches():
    split = uniform_split()
    other = batches.TrainingBatches(split, b"data 1", preprocessing(), batch_size=8, crop_scale=(0.2, 1.0), flip=True)
    assert not torch.equal(stream(split)(0)[0], other(0)[0])


@settings(deadline=None)
@given(n=st.integers(1, 30), batch_size=st.integers(1, 30))
def test_every_epoch_visits_every_image_once(n, batch_size):
    indices = stream(uniform_split(n), batch_size=batch_size).indices
    epochs = 3
    seen = np.concatenate([indices(step) for step in range(-(-epochs * n // batch_size))])[: epochs * n]
    assert (np.sort(seen.reshape(epochs, n), axis=1) == np.arange(n)).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [8, 16, 40])
def test_crops_equal_antialiased_interpolation(size, interpolation):
    split, wanted = uniform_split(6), preprocessing(size, interpolation)
    pixels = torch.from_numpy(split.images.uniform)
    boxes = np.array([[0, 0, 24, 20], [3, 5, 10, 7], [20, 2, 4, 18], [0, 19, 24, 1], [23, 0, 1, 20], [5, 5, 8, 8]])
    flips = np.array([0, 1, 0, 1, 0, 1], dtype=bool)
    ours = crops.crop_uniform(pixels, boxes, flips, wanted)
    for image, (top, left, height, width), flip, out in zip(pixels, boxes, flips, ours, strict=True):
        crop = image[top : top + height, left : left + width].permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(crop, size=(size, size), mode=interpolation, antialias=True)[0]
        expected = expected.clamp(0, 255).flip(-1) if flip else expected.clamp(0, 255)
        torch.testing.assert_close(out, expected, rtol=0, atol=2e-3)


def test_images_of_one_size_and_of_many_give_the_same_batches():
    """Up to the rounding to whole pixel values after each of the two passes, which the path for many sizes does."""
    split = uniform_split()
    a, labels_a = stream(split)(3)
    b, labels_b = stream(ragged_split(split), threads=2)(3)
    assert torch.equal(labels_a, labels_b)
    std = torch.tensor(preprocessing().std).view(3, 1, 1)
    assert ((a - b) * std * 255).abs().max() <= 1 + 1e-3


def test_the_switch_resizes_images_of_one_size_one_by_one(monkeypatch):
    split = uniform_split()
    monkeypatch.setenv(crops.SWITCH, "0")
    assert torch.equal(stream(split)(3)[0], stream(ragged_split(split), threads=2)(3)[0])
    monkeypatch.delenv(crops.SWITCH)
    assert not torch.equal(stream(split)(3)[0], stream(ragged_split(split), threads=2)(3)[0])


def test_crops_are_distributed_as_torchvision_draws_them():
    torch.manual_seed(0)
    n, height, width, scale = 4000, 30, 40, (0.08, 1.0)
    drawn = [
        transforms.RandomResizedCrop(8, scale=scale).make_params([torch.zeros(3, height, width)]) for _ in range(n)
    ]
    theirs = np.array([[d["top"], d["left"], d["height"], d["width"]] for d in drawn])
    split = types.SimpleNamespace(images=None, labels=np.zeros(n))
    shapes = np.tile([height, width], (n, 1))
    maker = batches.TrainingBatches(split, b"key", preprocessing(), batch_size=n, crop_scale=scale, flip=True)
    ours, flips = maker.crops(0, shapes)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3, column
    assert stats.binomtest(int(flips.sum()), n, 0.5).pvalue > 1e-3
    top, left, h, w = ours.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= height).all() and (left + w <= width).all()


def test_an_image_too_long_for_any_crop_keeps_its_centre():
    split = types.SimpleNamespace(images=None, labels=np.zeros(2))
    maker = batches.TrainingBatches(split, b"key", preprocessing(), batch_size=2, crop_scale=(1.0, 1.0), flip=False)
    boxes, flips = maker.crops(0, np.array([[10, 1000], [1000, 10]]))
    assert boxes.tolist() == [[0, 493, 10, 13], [493, 0, 13, 10]]
    assert not flips.any()


def photograph(width, height, seed=0):
    """What a camera would make of a scene: smooth shades, edges of objects, texture, noise; JPEG in between."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    scene = np.stack([120 + 80 * np.sin(3 * x + k) * np.cos(4 * y - k) for k in range(3)], axis=-1)
    for _ in range(12):
        inside = (x - rng.uniform()) ** 2 + (y - rng.uniform()) ** 2 < rng.uniform(0.05, 0.2) ** 2
        scene[inside] = rng.uniform(0, 255, 3) + 25 * np.sin(90 * (x + y))[inside][:, None]
    file = io.BytesIO()
    noisy = np.clip(scene + rng.normal(0, 6, scene.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(file, "JPEG", quality=92)
    return np.array(Image.open(file).convert("RGB"))


NORMALISATIONS = {"imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "half": ((0.5,) * 3, (0.5,) * 3)}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("width, height", [(640, 480), (333, 500), (180, 200)])
def test_photographs_are_evaluated_as_torchvision_transforms_them(width, height, normalisation, interpolation):
    mean, std = NORMALISATIONS[normalisation]
    image = photograph(width, height)
    wanted = vit.Preprocessing(size=112, mean=mean, std=std, interpolation=interpolation, crop_share=0.875)
    theirs = transforms.Compose(
        [
            transforms.Resize(128, transforms.InterpolationMode(interpolation), antialias=True),
            transforms.CenterCrop(112),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(mean, std),
        ]
    )(torch.from_numpy(image).permute(2, 0, 1))
    (ours,) = batches.evaluation(Images(image[None]), wanted)
    difference = (ours[0] - theirs).abs() * torch.tensor(std)[:, None, None] * 255
    assert difference.max() <= 1 + 1e-3 and difference.mean() < 0.05


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("width, height", [(320, 240), (60, 48)])
def test_photographs_are_cropped_as_torchvision_does(width, height, interpolation):
    """The boxes are ours (their distribution is tested above); what a box becomes is compared."""
    image, mean, std = photograph(width, height, seed=1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = vit.Preprocessing(size=48, mean=mean, std=std, interpolation=interpolation, crop_share=1.0)
    split = Split(Images(image[None]), np.zeros(1, np.int64))
    maker = batches.TrainingBatches(split, b"key", wanted, batch_size=1, crop_scale=(0.08, 1.0), flip=True)
    for step in range(8):
        ((top, left, h, w),), (flip,) = maker.crops(step, np.array([[height, width]]))
        crop = transforms.functional.resized_crop(
            torch.from_numpy(image).permute(2, 0, 1), top, left, h, w, [48, 48],
            transforms.InterpolationMode(interpolation), antialias=True,
        )  # fmt: skip
        theirs = transforms.functional.horizontal_flip(crop) if flip else crop
        theirs = transforms.functional.normalize(theirs.float() / 255, mean, std)
        difference = (maker(step)[0][0] - theirs).abs() * torch.tensor(std)[:, None, None] * 255
        # Small images are not rounded and, where bicubic overshoots at edges, not cut off between the two passes.
        allowed = 4 if width <= crops.SMALL and interpolation == "bicubic" else 1 + 1e-3
        assert difference.max() <= allowed and difference.mean() < 0.5


@pytest.mark.parametrize("height, width", [(24, 20), (20, 33), (16, 16)])
def test_evaluation_resizes_and_crops_as_torchvision_does(height, width):
    split, wanted = uniform_split(3, height, width), preprocessing(16, crop_share=0.8)
    steps = [transforms.Resize(20, antialias=True), transforms.CenterCrop(16)]
    theirs = transforms.Compose(steps)(torch.from_numpy(split.images.uniform).permute(0, 3, 1, 2))
    ours = batches.evaluation_pixels(split.images, wanted)
    ragged = batches.evaluation_pixels(ragged_split(split).images, wanted)
    assert torch.equal(ours, ragged)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert torch.equal(batches.evaluation_pixels(split.images, wanted, [2, 0]), ours[[2, 0]])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height, width", [(3, 700), (701, 30), (1, 50), (300, 12)])
def test_evaluation_of_long_images_is_the_same(height, width, interpolation):
    split, wanted = uniform_split(3, height, width), preprocessing(16, interpolation, crop_share=0.8)
    mode = transforms.InterpolationMode(interpolation)
    steps = [transforms.Resize(20, mode, antialias=True), transforms.CenterCrop(16)]
    theirs = transforms.Compose(steps)(torch.from_numpy(split.images.uniform).permute(0, 3, 1, 2))
    ours = batches.evaluation_pixels(split.images, wanted)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert torch.equal(ours, batches.evaluation_pixels(ragged_split(split).images, wanted))


@pytest.mark.parametrize("shape", [(1, 4_000_000), (3_000_000, 2)])
def test_an_image_of_any_shape_is_evaluated_in_little_memory(shape):
    """Whole, the resized image would have 600 GB."""
    images = np.full((1, *shape, 3), 77, np.uint8)
    pixels = batches.evaluation_pixels(Images(images), preprocessing(224))
    assert pixels.shape == (1, 3, 224, 224) and (pixels == 77).all()


def test_evaluation_comes_in_batches_in_order():
    split, wanted = uniform_split(5, 16, 16), preprocessing(16)
    pixels = batches.evaluation_pixels(split.images, wanted)
    whole = batches.normalise(pixels, wanted)
    for images in (split.images, pixels):
        found = list(batches.evaluation(images, wanted, batch_size=2))
        assert [len(batch) for batch in found] == [2, 2, 1]
        assert torch.equal(torch.cat(found), whole)
        assert torch.equal(torch.cat([*batches.evaluation(images, wanted, indices=[4, 0])]), whole[[4, 0]])


@pytest.mark.parametrize("split", [uniform_split(70, 21, 18), ragged_split(uniform_split(5, 21, 18))])
def test_a_split_too_large_to_be_kept_gives_the_same_batches(split):
    wanted = preprocessing(16)
    small, large = (batches.kept(split.images, wanted, most) for most in (len(split) * 3 * 16**2, 3 * 16**2))
    assert torch.is_tensor(small) and large is split.images
    ours, theirs = (list(batches.evaluation(images, wanted, batch_size=32)) for images in (small, large))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_normalisation_by_hand():
    pixels = torch.tensor([0.0, 127.5, 255.0]).view(1, 3, 1, 1)
    assert batches.normalise(pixels, preprocessing()).flatten().tolist() == pytest.approx([-2.5, 1 / 3, 1.75])
