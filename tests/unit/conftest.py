"""Small models and datasets for the unit tests of the science."""

import numpy as np
import pytest
import torch
from small_vit import small_vit

from vit_plasticity import vit
from vit_plasticity.data import registry as datasets
from vit_plasticity.data import store as dataset_writer

torch.set_num_threads(1)


@pytest.fixture
def model():
    return small_vit()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    vit.save(small_vit(), folder, {"test": True})
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
