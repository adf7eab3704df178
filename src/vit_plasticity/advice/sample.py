"""A dataset of which the large splits are cut down to random samples, so that an answer does not take longer for it."""

import dataclasses

import numpy as np

from vit_plasticity.data.registry import Split

UNTRAINED = {"train": 500, "val": 100, "test": 200}
"""Images of each split that are looked at, at most, where nothing is trained."""
MEASURED = {"train": 2000, "val": 1000, "test": 1000}
"""As many where something is trained, before it is."""
EVALUATED = {"val": 1000, "test": 1000}
"""As many when it is, of which all training images are used."""


def sampled(dataset, sizes, seed=0):
    """The dataset with its splits no larger than `sizes`, drawn at random without repetition, in their order."""
    splits = dict(dataset.splits)
    for name, most in sizes.items():
        split = dataset.split(name)
        if len(split) > most:
            random = np.random.default_rng([seed, len(split)])
            some = np.sort(random.permutation(len(split))[:most])
            splits[name] = Split(_Some(split.images, some), np.asarray(split.labels)[some])
    return dataclasses.replace(dataset, splits=splits)


class _Some:
    """Some of a split's images, by position (see `registry.Images`)."""

    def __init__(self, images, positions):
        self.images, self.positions = images, positions
        self.uniform = None if images.uniform is None else images.uniform[positions]

    def __len__(self):
        return len(self.positions)

    def __getitem__(self, index):
        return self.images[int(self.positions[index])]
