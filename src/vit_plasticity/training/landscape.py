"""The loss around the path along which a component was trained, on the plane that lies closest to that path.

The plane goes through the path's end along its two principal directions, as in Li et al. (2018, Visualizing the Loss
Landscape of Neural Nets, section 7). Only the component moves on it, while the head and the final norm stay what they
were at the end. Dimensions: N points of the path.
"""

from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch

from vit_plasticity.data import batches
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.training import checkpoints, run, step


def rows(one, chosen, trained, settings):
    """The path of a cell's chosen run and the loss around it: rows, as dicts; see the columns of `loss_landscape`.

    one: a `cell.Cell`, which is trained; chosen: the row of its chosen run; trained: what that run ended with, tensors
    by name. Raises InputError for a path that spans no plane.
    """
    steps = sorted({round(at) for at in np.linspace(0, chosen["best_step"], settings.path_points + 1).tolist()})
    measure = Measure(one, settings.images, settings.seed)
    path, on_path = follow(one, chosen["lr"], steps, measure)
    found = plane(path)
    xs, ys = (axis(along, settings.grid_points, settings.margin) for along in found.points.T)
    grid = losses(one.model, found.directions, xs, ys, measure)
    shared = dict(zip(("share_x", "share_y"), found.shares.tolist(), strict=True))
    shared |= {"end_error": _apart(path, -1, trained) / _apart(path, 0, trained), "n": len(measure.labels)}
    points = zip(steps, found.points.tolist(), on_path, found.distances.tolist(), strict=True)
    return [
        {"part": "grid", "x": x, "y": y, "loss": loss} | shared
        for y, line in zip(ys.tolist(), grid.tolist(), strict=True)
        for x, loss in zip(xs.tolist(), line, strict=True)
    ] + [
        {"part": "path", "step": at, "x": x, "y": y, "loss": loss, "distance": distance} | shared
        for at, (x, y), loss, distance in points
    ]


def _apart(path, index, tensors):
    """Distance of a point of a path from where `tensors` are."""
    return sum((t[index].double() - tensors[n].double()).square().sum().item() for n, t in path.items()) ** 0.5


class Measure:
    """The mean cross-entropy of a cell's model on some of its training images, as evaluation sees them.

    A seed draws the images, and every call takes the same.
    """

    def __init__(self, one, images, seed):
        """one: a `cell.Cell`; images: how many, or all where there are fewer."""
        split = one.dataset.split("train")
        chosen = np.sort(np.random.default_rng(seed).permutation(len(split.labels))[:images])
        self.one, self.labels = one, torch.tensor(split.labels)[chosen]
        self.pixels = batches.evaluation_pixels(split.images, one.preprocessing, chosen)

    def __call__(self):
        precision = self.one.params.precision
        return step.evaluate(self.one.model, self.pixels, self.labels, self.one.preprocessing, precision=precision).loss


def follow(one, lr, steps, measure):
    """Train a cell's run at a learning rate from its start to step `steps[-1]`, by the cell's own code.

    one: a `cell.Cell`, whose model ends as it was at that step. steps: ascending, from 0.
    Returns, of each of `steps`, the component's tensors, name → (N, …) on the CPU, and the loss that `measure` gives.
    Of the component `head`, which is nothing beside the head and the final norm, it is these tensors.
    """
    path = run.Run(one.model, one.pristine, one.params, lr)
    own = {id(p) for p in path.component}
    names = [name for name, p in path.trained.items() if id(p) in own] or [*path.trained]
    points, losses = {name: [] for name in names}, []

    def keep(_):
        if path.step in steps:
            losses.append(measure())
            for name in names:
                points[name].append(path.trained[name].detach().to("cpu", copy=True))
        if path.step == steps[-1]:
            raise checkpoints.Interrupted("the path ends here")

    keep(path)
    with suppress(checkpoints.Interrupted):
        run.train(
            path, one.model, one.batch_of, lambda: one.evaluate("val"), one.params,
            between_steps=keep, stop_requested=lambda: path.step in steps,
        )  # fmt: skip
    return {name: torch.stack(kept) for name, kept in points.items()}, losses


class Plane(NamedTuple):
    """The plane closest to a path among those through its end.

    points: (N, 2), the path's projection on it; distances: (N,), of the path from it; shares: (2,), of the sum of the
    squared distances from the end, what each direction accounts for; all float64. directions: name → (2, …) float32,
    orthonormal over all names together.
    """

    points: torch.Tensor
    distances: torch.Tensor
    shares: torch.Tensor
    directions: dict


def plane(path):
    """The Plane of a path, name → (N, …). Along either direction its start lies on the negative side of its end.

    Raises InputError where the path does not span a plane.
    """
    apart = lambda tensor: (tensor.double() - tensor[-1].double()).flatten(1)  # noqa: E731
    products = sum(apart(tensor) @ apart(tensor).T for tensor in path.values())
    values, vectors = torch.linalg.eigh(products)  # ascending
    values, vectors = values[-2:].flip(0), vectors[:, -2:].flip(1)
    if len(values) < 2 or values[1] <= 1e-12 * values[0]:
        raise InputError(
            f"the {len(products)} points of this path lie on a line, which spans no plane; keep more of them, or "
            "choose a cell that trained for more steps"
        )
    points = vectors * values.sqrt()
    points = torch.where(points[0] > 0, -points, points)
    points[-1] = 0  # which the solver knows but for rounding
    weights = (points / values).T  # (2, N)
    directions = {name: (weights @ apart(t)).view(2, *t.shape[1:]).float() for name, t in path.items()}
    squares = products.diagonal()
    distances = (squares - points.square().sum(dim=1)).clamp(min=0).sqrt()
    return Plane(points, distances, values / squares.sum(), directions)


def axis(values, most, margin):
    """At most `most` evenly spaced coordinates, 0 among them, that span some values and beyond them, on either side, a
    `margin` as a share of their span."""
    low, high = float(min(values)), float(max(values))
    beyond = margin * (high - low)
    gap = (high - low + 2 * beyond) / (most - 2)
    first, last = np.floor((low - beyond) / gap), np.ceil((high + beyond) / gap)
    return np.arange(first, last + 1) * gap


@torch.no_grad()
def losses(model, directions, xs, ys, measure):
    """Loss at every point of a grid: float array (len(ys), len(xs)). The model stands at the path's end, (0, 0), and is
    left there. directions: of a `Plane`; measure: () → loss."""
    parameters = {name: model.get_parameter(name) for name in directions}
    end = {name: p.detach().clone() for name, p in parameters.items()}
    along = {name: both.to(end[name].device) for name, both in directions.items()}
    found = np.empty((len(ys), len(xs)))
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            for name, p in parameters.items():
                p.copy_(end[name] + x * along[name][0] + y * along[name][1])
            found[i, j] = measure()
    for name, p in parameters.items():
        p.copy_(end[name])
    return found
