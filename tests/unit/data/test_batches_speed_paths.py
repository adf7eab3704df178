"""The ways in which batches are made, by size, shape and device, all give the same batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vit_plasticity import vit
from vit_plasticity.data import batches
from vit_plasticity.data.registry import Images, Split


def preprocessing(size, interpolation="bilinear"):
    return vit.Preprocessing(size, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), interpolation, 1.0)


def split_of(height, width, ragged, n=12):
    pixels = np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    shapes = np.tile(np.array([height, width], dtype=np.int32), (n, 1))
    return Split(Images(pixels.reshape(-1), shapes) if ragged else Images(pixels), np.arange(n))


def stream(split, wanted, batch_size=7):
    return batches.TrainingBatches(split, b"k", wanted, batch_size=batch_size, crop_scale=(0.1, 1.0), flip=True)


def difference(split, wanted, dtype):
    """Pixel values between a batch and what torch's antialiased interpolation makes of numbers of `dtype`."""
    maker = stream(split, wanted)
    index = maker.indices(1)
    boxes, flips = maker.crops(1, batches.image_shapes(split.images, index))
    images = []
    for i, (top, left, height, width), flip in zip(index, boxes, flips, strict=True):
        crop = torch.tensor(np.array(split.images[i][top : top + height, left : left + width])).permute(2, 0, 1)[None]
        resized = functional.interpolate(
            crop.to(dtype), size=(wanted.size,) * 2, mode=wanted.interpolation, antialias=True
        )[0].clamp(0, 255)
        images.append(resized.flip(-1) if flip else resized)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (wanted.mean, wanted.std))
    return ((maker(1)[0] * std + mean) * 255 - torch.stack(images)).abs()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("height, width, size", [(90, 70, 32), (20, 24, 80), (70, 100, 100)])
def test_large_crops_are_those_of_torch(height, width, size, ragged, interpolation):
    off = difference(split_of(height, width, ragged), preprocessing(size, interpolation), torch.uint8)
    # Where channels are not last in memory, torch resizes by another path, which may round the other way.
    assert off.max() <= 1 + 1e-3
    assert off.mean() < 0.01


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height, width, size", [(24, 32, 32), (24, 32, 64), (64, 40, 16)])
def test_small_crops_are_those_of_torch(height, width, size, interpolation):
    split = split_of(height, width, ragged=False)
    assert difference(split, preprocessing(size, interpolation), torch.float32).max() < 2e-3


@pytest.mark.parametrize("size", [16, 80])
@pytest.mark.parametrize("ragged", [True, False])
def test_how_many_images_are_cropped_at_a_time_changes_nothing(ragged, size):
    split = split_of(30, 40, ragged, n=90)
    small, large = (stream(split, preprocessing(size), batch_size) for batch_size in (30, 90))
    index = large.indices(0)
    shapes = batches.image_shapes(split.images, index)
    boxes, flips = large.crops(0, shapes)
    parts = [large._crop(index[[i]], boxes[[i]], flips[[i]]) for i in range(90)]
    torch.testing.assert_close(large(0)[0], batches.normalise(torch.cat(parts), preprocessing(size)))
    assert small(0)[0].shape == (30, 3, size, size)


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.integers(0, 20), min_size=1, max_size=8), ragged=st.booleans())
def test_batches_made_ahead_are_those_made_when_asked_for(steps, ragged):
    split = split_of(24, 20, ragged)
    ahead, plain = (stream(split, preprocessing(16)) for _ in range(2))
    ahead.make_ahead(threads=2)
    for step in (*steps, steps[-1] + 1):
        for ours, wanted in zip(ahead(step), plain(step), strict=True):
            assert torch.equal(ours, wanted)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalisation_does_not_depend_on_layout_or_type(memory_format, dtype):
    wanted = preprocessing(8)
    pixels = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (wanted.mean, wanted.std))
    ours = batches.normalise(pixels.to(dtype).contiguous(memory_format=memory_format), wanted)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, (pixels / 255 - mean) / std)
