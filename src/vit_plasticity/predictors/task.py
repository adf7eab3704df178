"""What predictors are given: a model, the components asked for, images, and parts computed once for all of them.

Dimensions: N pairs or images, L tokens, D embedding width.
"""

import numpy as np

from vit_plasticity import vit
from vit_plasticity.predictors import gradients, in_situ, points
from vit_plasticity.predictors.fitted_head import fitted_head, held_out_loss
from vit_plasticity.predictors.shared import Ledger, shared
from vit_plasticity.runtime.intervals import image_interval


class Task(Ledger):
    """One model and one dataset.

    components: `Component` objects. source: the split of pre-training images. dataset: a Dataset, of which predictors
    use the training split, the labels of the validation split, and of the test split the images alone, as the paper
    does. settings: those of the section `measure`; finetune: those of the cells, for what trains a little. same_images:
    the source is the dataset's own test split.
    """

    def __init__(self, model, components, source, dataset, settings, *, finetune=None, same_images=False):
        super().__init__()
        self.model, self.components, self.settings, self.finetune = model, tuple(components), settings, finetune
        self.source, self.dataset, self.same_images = source, dataset, same_images
        self.target = dataset.split("test")
        self.n_blocks = len(vit.family(model).blocks(model))

    def rows(self, function, name):
        """What the predictor `function` gives, its time kept under `name` (see `duration`)."""
        with self.clocked(name):
            return list(function(self))

    @shared
    def pairs(self):
        """Source and target image of every pair, each (N,): the first of those whose plasticity is measured."""
        return points.pair_indices(len(self.source), len(self.target), self.settings, self.same_images)

    @shared
    def changes(self):
        """What the measurable components do to the pairs in situ: {component: `in_situ.Changes`}."""
        components, parts = sorted({base for _, base, _ in measured(self)}), []
        at_once = points.at_once(self.model)
        for start in range(0, len(self.pairs[0]), at_once):
            some = slice(start, start + at_once)
            source, target = (
                points.images(self.model, split, indices[some])
                for split, indices in zip((self.source, self.target), self.pairs, strict=True)
            )
            parts.append(in_situ.changes(self.model, source, target, components))
        return in_situ.joined(parts)

    @shared
    def training_images(self):
        """Training images for what needs few, by position in their split: drawn at random, without repetition."""
        order = np.random.default_rng([self.settings.seed, 2]).permutation(len(self.dataset.split("train")))
        return order[: self.settings.local_images]

    @shared
    def head(self):
        """The head that gradients are taken with: (weight (K, D), bias (K,)) on the model's device."""
        return fitted_head(self.model, self.dataset)

    @property
    def batches(self):
        """Positions in the training split of the images of each batch that gradients are taken of."""
        return gradients.batches_of(len(self.dataset.split("train")), self.settings)

    @shared
    def gradients(self):
        """The `gradients.Gradient` of every parameter of the components: {name: Gradient}."""
        chosen = filter(of_weights, self.components)
        names = {name for component in chosen for name in component.parameters(self.model)}
        return gradients.measure(self.model, self.head, self.dataset.split("train"), self.batches, names)

    @shared
    def held_out(self):
        """Validation images by position in their split, as many as gradients are taken of, and their loss."""
        split = self.dataset.split("val")
        indices = np.concatenate(gradients.batches_of(len(split), self.settings))
        return indices, held_out_loss(self.model, self.head, split, indices)

    @shared
    def tokens(self):
        """The `points.Tokens` of all images that plasticity is measured on."""
        most = _Most(self.settings.images, self.settings.seed)
        source, target = points.pair_indices(len(self.source), len(self.target), most, self.same_images)
        used = [sorted(set(indices.tolist())) for indices in (source, target)]
        return points.token_sizes(self.model, (self.source, used[0]), [(self.target, used[1])])


def of_weights(component):
    """Whether all that it trains are parameters of the model as wholes: no adapters of its own, no mask on them."""
    return component.rank is None and component.size is None


def names_by_block(model, component):
    """Block → names of the component's parameters in it; None → of those outside of blocks."""
    home = {id(p): i for i, block in enumerate(vit.family(model).blocks(model)) for p in block.parameters()}
    names = {}
    for name, parameter in component.parameters(model).items():
        names.setdefault(home.get(id(parameter)), []).append(name)
    return names


def by_parameters(task, value_of, *, averaged=False, **columns):
    """Rows of every component as a whole and of each of its blocks, by the parameters that it trains.

    value_of: names of parameters → value. averaged: the whole is the mean of the blocks' values, in which what lies
    outside of blocks counts as one more block, instead of the value of all parameters. A component without parameters
    of its own (head), or that is not `of_weights`, has null, and so has a mean with a null in it.
    """
    for component in task.components:
        names = names_by_block(task.model, component) if of_weights(component) else {}
        values = {block: value_of(some) for block, some in names.items()}
        if not values:
            whole = None
        elif averaged:
            whole = None if None in values.values() else sum(values.values()) / len(values)
        else:
            whole = value_of([name for some in names.values() for name in some])
        for block, value in (values | {None: whole}).items():
            yield {"component": component.name, "block": block, "value": value} | columns


class _Most:
    def __init__(self, pairs, seed):
        self.pairs, self.seed = pairs, seed


def measured(task):
    """(component, name of the measurable one that it is, or is a range of blocks of, its blocks) of each such one."""
    for component in task.components:
        if component.base:
            yield component, component.base.name, component.blocks(task.n_blocks)


def by_block(task, values_of, **columns):
    """Rows of every block and their mean, of the components that have a plasticity.

    values_of: name of a measurable component → a value for each block, None where there is none; then there is no mean.
    """
    known = {}
    for component, base, blocks in measured(task):
        if base not in known:
            known[base] = values_of(base)
        values = [known[base][block] for block in blocks]
        mean = None if None in values else sum(values) / len(values)
        for block, value in [(None, mean), *zip(blocks, values, strict=True)]:
            yield {"component": component.name, "block": block, "value": value} | columns


def with_intervals(task, values_of):
    """Rows of the mean over pairs of every block and of the mean over blocks, with intervals that resample images.

    values_of: name of a measurable component → tensor (n_blocks, N), one column per pair of `task.pairs`.
    """
    for component, base, blocks in measured(task):
        values = values_of(base).cpu().numpy()[blocks]
        series = np.concatenate([values.mean(axis=0)[None], values])
        found = image_interval(series, *task.pairs, 0.95, same_images=task.same_images)
        for block, mean, low, high in zip([None, *blocks], *found, strict=True):
            row = {"component": component.name, "block": block, "value": mean, "ci_low": low, "ci_high": high}
            yield row | {"n": values.shape[1]}
