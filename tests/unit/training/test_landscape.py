"""The loss landscape: the path is the cell's own, the plane is the closest one, the loss on it is the model's."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from small_cells import DIVERGES, SETTINGS, finetuned

from vit_plasticity import landscape, vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import batches
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study.config import settings
from vit_plasticity.training import cell, evaluation, step
from vit_plasticity.training import landscape as room

PARAMS = {"path_points": 5, "grid_points": 9, "images": 20, "margin": 0.2, "seed": 1}


def run(output, runs, model_folder, dataset_folder, **changes):
    arguments = ["--model", model_folder, "--dataset", dataset_folder, "--runs", runs, "--output", output]
    status = cli.run(landscape.main, [*map(str, arguments), "--params", json.dumps(PARAMS | changes)])
    assert status == 0
    return pq.read_table(output, partitioning=None).to_pandas()


@pytest.fixture(scope="module")
def runs(tmp_path_factory, model_folder, dataset_folder):
    return finetuned(tmp_path_factory.mktemp("cells"), model_folder, dataset_folder, "mha", seed=3)


@pytest.fixture(scope="module")
def rows(runs, tmp_path_factory, model_folder, dataset_folder):
    return run(tmp_path_factory.mktemp("l") / "l.parquet", runs, model_folder, dataset_folder)


def chosen_run(runs):
    return next(row for row in pq.read_table(runs, partitioning=None).to_pylist() if row["chosen"])


@pytest.mark.parametrize(
    ("component", "changes"),
    [
        ("mha", {}),
        ("ln1", {"optimizer": "adamw", "lrs": [1e-2], "weight_decay": 0.1}),
        ("mha~20", {}),
        ("lora2:fc1", {}),
        ("head", {}),
    ],
)
def test_the_path_ends_at_the_cells_tensors_to_the_bit(
    component, changes, model_folder, dataset, dataset_folder, tmp_path
):
    runs = finetuned(tmp_path, model_folder, dataset_folder, component, seed=3, **changes)
    chosen, params = chosen_run(runs), settings("finetune", json.dumps(SETTINGS | changes))
    one = cell.Cell(vit.load(model_folder), dataset, component, 3, params, Path(), {}, None, torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in one.pristine.items()}
    steps = [0, 1, chosen["best_step"]]
    path, losses = room.follow(one, chosen["lr"], steps, room.Measure(one, 20, 0))
    trained = safetensors.torch.load_file(runs.with_name("trained.safetensors"))
    inside = {name for name in trained if not name.startswith(("head.", "norm."))}
    assert path.keys() == (inside or {*trained})
    for name, tensor in path.items():
        assert torch.equal(tensor[0], before[name])
        assert torch.equal(tensor[-1], trained[name])
    for name, tensor in trained.items():  # the head too, so that the model is the cell's
        assert torch.equal(one.model.get_parameter(name), tensor)
    assert losses[0] == pytest.approx(np.log(3))  # the head starts at zero
    assert losses[-1] < losses[0]


@pytest.fixture
def restored(runs, model_folder):
    """The fine-tuned model of the cell, from its files."""
    tensors, made = evaluation.read(runs.with_name("trained.safetensors"))
    return evaluation.rebuild(model_folder, tensors, made, torch.device("cpu"))


def loss_of(model, dataset):
    """The mean loss of a model on the images that PARAMS draw."""
    train, drawn = dataset.split("train"), np.sort(np.random.default_rng(1).permutation(60)[:20])
    pixels = batches.evaluation_pixels(train.images, vit.preprocessing(model), drawn)
    return step.evaluate(model, pixels, np.asarray(train.labels)[drawn], vit.preprocessing(model)).loss


def test_the_loss_on_the_grid_is_that_of_the_model(runs, rows, restored, model_folder, dataset):
    """At the path's end it is that of the cell, put together from its files; elsewhere that of the component moved."""
    grid, path = rows[rows["part"] == "grid"], rows[rows["part"] == "path"]
    assert (set(rows["n"]), set(rows["end_error"]), set(rows["lr"])) == ({20}, {0}, {chosen_run(runs)["lr"]})
    (end,) = grid.loc[grid["x"].eq(0) & grid["y"].eq(0), "loss"]
    assert end == path["loss"].iloc[-1] == loss_of(restored, dataset)

    params = settings("finetune", json.dumps(SETTINGS))
    one = cell.Cell(vit.load(model_folder), dataset, "mha", 3, params, Path(), {}, None, torch.device("cpu"))
    tensors, _ = room.follow(one, chosen_run(runs)["lr"], path["step"].astype(int).tolist(), lambda: 0.0)
    directions = room.plane(tensors).directions
    for _, point in grid.iloc[[0, 40, -1]].iterrows():
        with torch.no_grad():
            for name, (u, v) in directions.items():
                restored.get_parameter(name).copy_(tensors[name][-1] + point["x"] * u + point["y"] * v)
        assert point["loss"] == pytest.approx(loss_of(restored, dataset), rel=1e-5)


def test_the_path_lies_within_the_grid_and_starts_on_its_lower_left(runs, rows):
    grid, path = rows[rows["part"] == "grid"], rows[rows["part"] == "path"]
    assert path["step"].tolist() == sorted({round(s) for s in np.linspace(0, chosen_run(runs)["best_step"], 6)})
    assert (path[["x", "y", "distance"]].iloc[-1] == 0).all()
    for name in ("x", "y"):
        along, margin = grid[name], 0.2 * np.ptp(path[name])
        assert along.min() <= path[name].min() - margin and along.max() >= path[name].max() + margin
        assert along.nunique() <= 9 and np.allclose(np.diff(sorted(set(along))), np.diff(sorted(set(along)))[0])
        assert path[name].iloc[0] < 0
    assert len(grid) == grid["x"].nunique() * grid["y"].nunique()
    squares = path[["x", "y", "distance"]].pow(2).sum()
    assert (squares / squares.sum()).iloc[:2].tolist() == pytest.approx(rows[["share_x", "share_y"]].iloc[0].tolist())


def test_the_plane_is_the_closest_to_the_path():
    """By the singular values of what the points are apart from the end, computed on one long vector."""
    random = torch.Generator().manual_seed(0)
    path = {"a": torch.randn(7, 3, 4, generator=random).cumsum(0), "b": torch.randn(7, 5, generator=random).cumsum(0)}
    apart = torch.cat([(t - t[-1]).double().flatten(1) for t in path.values()], dim=1)
    values = torch.linalg.svdvals(apart)
    found = room.plane(path)
    torch.testing.assert_close(found.shares, (values**2 / (values**2).sum())[:2])
    torch.testing.assert_close(found.distances.square().sum(), (values[2:] ** 2).sum())
    directions = torch.cat([d.double().flatten(1) for d in found.directions.values()], dim=1)
    torch.testing.assert_close(directions @ directions.T, torch.eye(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(apart @ directions.T, found.points, atol=1e-5, rtol=0)
    again = room.plane({name: -tensor for name, tensor in path.items()})
    torch.testing.assert_close(again.points, found.points)  # the sign is that of the path, not of the solver


def test_a_path_along_a_line_is_refused():
    line = torch.arange(4.0)[:, None] * torch.tensor([1.0, 2.0])
    for path in (line, line[:2], line[:1], torch.zeros(3, 2)):
        with pytest.raises(
            InputError, match=f"the {len(path)} points of this path lie on a line, which spans no plane"
        ):
            room.plane({"a": path})


@pytest.mark.parametrize("values", [(-3.0, 0.0), (0.0, 0.1), (-1e-3, 0.0, 2e-3)])
@pytest.mark.parametrize("margin", [0, 0.3])
def test_the_end_is_a_point_of_the_grid(values, margin):
    for most in range(5, 40):
        axis = room.axis(values, most, margin)
        assert 0 in axis and len(axis) <= most
        beyond = margin * np.ptp(values) - 1e-9
        assert axis[0] <= min(values) - beyond and axis[-1] >= max(values) + beyond


def test_a_cell_of_which_every_run_diverged_has_one_row_that_says_so(model_folder, dataset_folder, tmp_path):
    runs = finetuned(tmp_path, model_folder, dataset_folder, "ln1", **DIVERGES)
    (row,) = run(tmp_path / "l.parquet", runs, model_folder, dataset_folder).to_dict("records")
    assert (row["component"], row["part"], row["loss"], row["lr"]) == ("ln1", None, None, None)


def test_the_path_of_an_adaptive_component_is_that_of_what_it_became(model_folder, dataset_folder, tmp_path):
    runs = finetuned(tmp_path, model_folder, dataset_folder, "auto:random:1", candidates=["fc1", "ln1"])
    rows = run(tmp_path / "l.parquet", runs, model_folder, dataset_folder)
    assert (set(rows["component"]), set(rows["end_error"])) == ({"auto:random:1"}, {0})


def test_the_table_says_what_made_it(rows, runs, tmp_path, model_folder, dataset_folder):
    output = tmp_path / "l.parquet"
    again = run(output, runs, model_folder, dataset_folder, grid_points=5)
    assert tables.about(output)["settings"] == PARAMS | {"grid_points": 5}
    assert tables.about(output)["spec"] == tables.about(runs)["spec"]
    path = [table[table["part"] == "path"].reset_index(drop=True) for table in (rows, again)]
    assert path[0].equals(path[1])  # the grid changes nothing of it, and a second training is the first
