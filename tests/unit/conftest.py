"""Small models and datasets for the unit tests of the science."""

import numpy as np
import pytest
import timm
import torch

from vit_plasticity import dataset_writer, datasets, models

torch.set_num_threads(1)


def small_vit(architecture="vit_tiny_patch16_224", **changes):
    """A ViT of two blocks with random weights of a size that shows: seeded, 16² images, 4 patches."""
    torch.manual_seed(0)
    arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3}
    model = timm.create_model(architecture, pretrained=False, **arguments | changes)
    half = (0.5, 0.5, 0.5)
    size = model.patch_embed.img_size[0]
    model.pretrained_cfg |= {"input_size": (3, size, size), "mean": half, "std": half, "crop_pct": 1.0}
    model.pretrained_cfg |= {"interpolation": "bilinear"}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def model():
    return small_vit()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    models.save(small_vit(), folder, {"test": True})
    return folder


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    """Three classes of noisy 16² images, told apart by their channel: 60 train, 12 val, 30 test."""
    folder = tmp_path_factory.mktemp("datasets") / "colours"
    random = np.random.default_rng(0)
    with dataset_writer.create(folder, "colours", source="drawn", licence="none") as writer:
        writer.classes = ["red", "green", "blue"]
        for split, n in (("train", 60), ("val", 12), ("test", 30)):
            labels = np.arange(n) % 3
            images = random.integers(0, 160, (n, 16, 16, 3))
            images[np.arange(n), :, :, labels] += 60
            writer.extend(split, images.astype(np.uint8), labels)
    return folder


@pytest.fixture
def dataset(dataset_folder):
    return datasets.open_dataset(dataset_folder)
