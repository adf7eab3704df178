"""A cell: only its component moves, the same seed gives the same tensors, and an interruption leaves no trace."""

import copy
import dataclasses
import itertools
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from processes import UNSTABLE
from small_vit import small_vit

from vit_plasticity import evaluate, finetune, vit
from vit_plasticity.analysis import tables
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.study.config import Settings, settings
from vit_plasticity.training import cell, checkpoints, evaluation

SETTINGS = {"steps": 12, "evaluation_period": 4, "batch_size": 8, "warmup_steps": 2, "lrs": [0.05, 0.2]}
PARAMS = settings("finetune", json.dumps(SETTINGS))


def changed(**values):
    """PARAMS with other values, also such as no study may have."""
    return Settings(**PARAMS.as_dict() | values)


class Never:
    """A schedule that writes no checkpoint and stops nothing."""

    stop = None

    def __call__(self, run, checkpoint):
        pass


def trained_cell(dataset, folder, component="mha", seed=0, params=PARAMS, schedule=None):
    """(rows, history, tensors of the chosen run) of a cell whose work lies in `folder`."""
    folder.mkdir(exist_ok=True)
    keys = {lr: f"key of {lr}" for lr in params.lrs}
    schedule, device = schedule or Never(), torch.device("cpu")
    one = cell.Cell(small_vit(), dataset, component, seed, params, folder, keys, schedule, device)
    rows, history, trained = one.train()
    return rows, history, safetensors.torch.load_file(trained) if trained else {}


def without_durations(rows):
    return [{name: value for name, value in row.items() if name not in UNSTABLE} for row in rows]


def assert_equal_cells(a, b):
    assert without_durations(a[0]) == without_durations(b[0])
    for column, values in a[1].items():
        np.testing.assert_array_equal(values, b[1][column], err_msg=column)
    assert a[2].keys() == b[2].keys()
    assert all(torch.equal(a[2][name], b[2][name]) for name in a[2])


def test_a_masked_cell_trains_that_many_values_of_each_block_even_with_decay(dataset, tmp_path):
    params = changed(optimizer="adamw", weight_decay=0.5)
    rows, _, trained = trained_cell(dataset, tmp_path / "w", "mha~20", params=params)
    before = small_vit().state_dict()
    for block in range(2):
        names = [n for n in trained if n.startswith(f"blocks.{block}.")]
        assert sum(int((trained[n] != before[n]).sum()) for n in names) == 20
    always = sum(t.numel() for n, t in trained.items() if n.startswith(("norm.", "head.")))
    assert {row["n_trained"] for row in rows} == {2 * 20 + always}


def test_a_mask_of_all_values_is_the_component_to_the_bit(dataset, tmp_path):
    params = changed(weight_decay=0.1)
    masked, whole = (trained_cell(dataset, tmp_path / n, n, params=params) for n in ("ln1~48", "ln1"))
    assert_equal_cells(masked, whole)


@pytest.mark.parametrize("component", ["ln1", "mha@1", "embed", "full", "mha+fc1", "head", "lora2:fc2", "mha~20"])
def test_a_cell_saves_what_it_trained_and_nothing_else(component, dataset, tmp_path):
    _, _, trained = trained_cell(dataset, tmp_path / "w", component)
    names = vit.train_only(small_vit(), component)
    assert set(trained) == set(names)
    before = dict(small_vit().named_parameters())
    moved = [
        n
        for n in names
        if n in before and before[n].shape == trained[n].shape and not torch.equal(before[n], trained[n])
    ]
    assert moved


def test_the_same_seed_gives_the_same_cell_and_another_does_not(dataset, tmp_path):
    first, again = (trained_cell(dataset, tmp_path / name) for name in "ab")
    assert_equal_cells(first, again)
    other = trained_cell(dataset, tmp_path / "c", seed=1)
    assert not np.array_equal(first[1]["loss"], other[1]["loss"])


def test_runs_start_alike_and_differ_by_their_learning_rate(dataset, tmp_path):
    rows, history, _ = trained_cell(dataset, tmp_path / "w")
    assert [row["lr"] for row in rows] == [0.05, 0.2]
    losses = history["loss"].reshape(2, 12)
    assert losses[0, 0] == losses[1, 0] == pytest.approx(np.log(3))
    assert losses[0, -1] != losses[1, -1]
    assert history["step"].tolist() == [*range(1, 13)] * 2
    assert history["step_lr"][:3].tolist() == pytest.approx([0.025, 0.05, 0.05])
    evaluated = np.isfinite(history["val_accuracy"]).reshape(2, 12)
    assert np.flatnonzero(evaluated[0]).tolist() == [3, 7, 11]


def test_validation_picks_step_and_learning_rate(dataset, tmp_path):
    rows, history, _ = trained_cell(dataset, tmp_path / "w")
    accuracies = history["val_accuracy"].reshape(2, 12)
    for row, curve in zip(rows, accuracies, strict=True):
        assert row["val_accuracy"] == np.nanmax(curve)
        assert row["best_step"] == np.nanargmax(curve) + 1  # the first of equals
    best = max(row["val_accuracy"] for row in rows)
    chosen = [row["chosen"] for row in rows]
    assert chosen.count(True) == 1
    assert rows[chosen.index(True)]["val_accuracy"] == best


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop_at", [4, 8, 12, 16, 20])
def test_an_interrupted_cell_ends_like_an_undisturbed_one(optimizer, stop_at, dataset, tmp_path):
    """Stopped at an evaluation of the first or the second run, with everything forgotten but the work folder."""
    rates = (0.05, 0.2) if optimizer == "sgd" else (1e-3, 1e-2)
    params = changed(lrs=rates, optimizer=optimizer)

    class Interrupt(Never):
        def __call__(self, run, checkpoint):
            if run.step + (12 if run.lr == rates[1] else 0) == stop_at:
                checkpoint.save(run.tensors(), run.state())
                raise checkpoints.Interrupted

    class Record(Never):
        def __call__(self, run, checkpoint):
            resumed_from.append((run.lr, run.step))

    with pytest.raises(checkpoints.Interrupted):
        trained_cell(dataset, tmp_path / "w", params=params, schedule=Interrupt())
    resumed_from = []
    resumed = trained_cell(dataset, tmp_path / "w", params=params, schedule=Record())
    assert len(resumed_from) == 6 - stop_at // 4  # evaluations that were still to be done
    assert_equal_cells(resumed, trained_cell(dataset, tmp_path / "undisturbed", params=params))


def test_divergence_is_an_outcome(dataset, tmp_path):
    params = changed(lrs=(0.05, 1e30), clip_norm=1e30)
    rows, history, trained = trained_cell(dataset, tmp_path / "w", "full", params=params)
    good, bad = rows
    assert (good["outcome"], good["chosen"], bad["outcome"], bad["chosen"]) == ("finished", True, "diverged", False)
    assert bad["val_accuracy"] is bad["test_accuracy"] is bad["best_step"] is None
    assert bad["steps_trained"] < 12
    assert bad["val_accuracy_before_divergence"] is bad["best_step_before_divergence"] is None  # at its second step
    assert good["val_accuracy_before_divergence"] is None
    losses = history["loss"][history["lr"] == 1e30]
    assert len(losses) == bad["steps_trained"] + 1  # up to and with the first that is not finite
    assert np.isfinite(losses[:-1]).all()
    assert all(t.isfinite().all() for t in trained.values())


def test_a_run_that_diverges_late_keeps_its_best_validated_step(dataset, tmp_path, monkeypatch):
    """In columns of its own: it is neither chosen nor tested."""
    taken = cell.step.step
    steps = itertools.count(1)

    def breaks_at_ten(*arguments, **options):
        loss, norm = taken(*arguments, **options)
        return (loss * torch.nan if next(steps) == 10 else loss), norm

    monkeypatch.setattr(cell.step, "step", breaks_at_ten)
    (row,), history, trained = trained_cell(dataset, tmp_path / "w", params=changed(lrs=(0.05,)))
    assert (row["outcome"], row["steps_trained"], row["chosen"], trained) == ("diverged", 9, False, {})
    assert row["val_accuracy"] is row["best_step"] is row["test_accuracy"] is row["test_balanced_accuracy"] is None
    assert row["val_accuracy_before_divergence"] == np.nanmax(history["val_accuracy"])
    assert row["best_step_before_divergence"] == np.nanargmax(history["val_accuracy"]) + 1


def test_the_test_split_is_read_once_a_run_and_chooses_nothing(dataset, tmp_path, monkeypatch):
    """Its labels are mixed up in a second cell, which trains and chooses alike."""
    read = []
    evaluate = cell.Cell.evaluate

    def recorded(self, name):
        read.append(name)
        return evaluate(self, name)

    monkeypatch.setattr(cell.Cell, "evaluate", recorded)
    rows, history, trained = trained_cell(dataset, tmp_path / "a")
    assert read == [*["val"] * 3, "test"] * 2
    other = copy.copy(dataset)
    splits = {name: dataset.split(name) for name in ("train", "val", "test")}
    test = splits["test"]
    splits["test"] = dataclasses.replace(test, labels=(np.asarray(test.labels) + 1) % 3)
    monkeypatch.setattr(type(other), "split", lambda self, name: splits[name])
    rows_again, history_again, trained_again = trained_cell(other, tmp_path / "b")
    assert [r["test_accuracy"] for r in rows] != [r["test_accuracy"] for r in rows_again]
    tested = ("test_accuracy", "test_balanced_accuracy", "largest_class_share")
    for row in rows + rows_again:
        for name in tested:
            del row[name]
    assert_equal_cells((rows, history, trained), (rows_again, history_again, trained_again))


def test_the_learning_rate_is_chosen_on_validation_the_first_of_equals():
    accuracies = {0.1: (0.8, 0.1), 0.2: (0.7, 0.9), 0.3: (0.8, 0.95), 0.4: (None, None)}
    finished = {lr: ({"val_accuracy": val, "test_accuracy": test}, None) for lr, (val, test) in accuracies.items()}
    assert cell._best(finished, [0.4, 0.2, 0.1, 0.3]) == 0.1
    assert cell._best({}, [0.1]) is None


def test_what_a_run_costs_and_the_gradient_of_its_component(dataset, tmp_path):
    rows, history, _ = trained_cell(dataset, tmp_path / "w", "ln1")
    for row in rows:
        assert 0 < row["step_duration_s"] * 12 < row["duration_s"]
        assert row["n_trained"] == 2 * 2 * 24 + 2 * 24 + 3 * 24 + 3
        assert row["largest_class_share"] == 1 / 3
        assert row["test_balanced_accuracy"] == pytest.approx(row["test_accuracy"])  # as many images of each class
    own, whole = history["component_gradient_norm"], history["gradient_norm"]
    assert (own[0], own[12]) == (0, 0)  # the head starts at zero, and nothing below it has a gradient yet
    assert (own[1:12] > 0).all()
    assert (own < whole).all()


def test_a_drawn_head_lets_the_component_learn_at_once(dataset, tmp_path):
    """And is of the cell's seed: with it alone, runs begin at other losses."""
    params = changed(head_init="linear")
    histories = [trained_cell(dataset, tmp_path / str(seed), seed=seed, params=params)[1] for seed in (0, 1)]
    assert all(history["component_gradient_norm"][0] > 0 for history in histories)
    assert histories[0]["loss"][0] != np.log(3) != histories[1]["loss"][0]


def test_a_split_of_its_own_has_the_same_sizes_and_the_same_test(dataset, tmp_path):
    (fixed, other) = (
        trained_cell(dataset, tmp_path / split, seed=1, params=changed(split=split)) for split in ("fixed", "per_seed")
    )
    for name in ("n_train", "n_val", "n_test"):
        assert fixed[0][0][name] == other[0][0][name]
    assert not np.array_equal(fixed[1]["loss"], other[1]["loss"])


def test_a_cell_in_which_everything_diverges_saves_no_tensors(dataset, tmp_path):
    params = changed(lrs=(1e30,), clip_norm=1e30)
    rows, _, trained = trained_cell(dataset, tmp_path / "w", "full", params=params)
    assert not trained
    assert not rows[0]["chosen"]


def run_main(model_folder, dataset_folder, folder, *more):
    arguments = ["--model", model_folder, "--dataset", dataset_folder, "--component", "fc1", "--seed", 3]
    arguments += ["--output", folder / "cell" / "runs.parquet", "--study", "test"]
    return cli.run(finetune.main, [str(a) for a in [*arguments, "--params", json.dumps(SETTINGS), *more]])


def test_the_stage_writes_its_files_and_leaves_no_checkpoint(model_folder, dataset_folder, tmp_path):
    assert run_main(model_folder, dataset_folder, tmp_path) == 0
    made = tmp_path / "cell"
    assert {p.name for p in made.iterdir()} == {*cell.OUTPUTS, "runs"}
    best, *_ = (p.name for p in made.glob("runs/*.tensors"))
    assert {p.name for p in made.glob("runs/*")} == {"lr=0.05.run", "lr=0.2.run", best}
    runs = pq.read_table(made / "runs.parquet").to_pylist()
    assert [(r["model"], r["dataset"], r["component"], r["seed"], r["lr"]) for r in runs] == [
        ("small", "colours", "fc1", 3, 0.05),
        ("small", "colours", "fc1", 3, 0.2),
    ]
    assert runs[0]["n_trained"] == 2 * (96 * 24 + 96) + 2 * 24 + 3 * 24 + 3
    assert (runs[0]["n_train"], runs[0]["n_val"], runs[0]["n_test"]) == (60, 12, 30)
    assert len(pq.read_table(made / "history.parquet")) == 24
    assert tables.about(made / "runs.parquet")["provenance"]["packages"]["torch"]

    # The tensors on disk are the chosen run: put together again they give its test accuracy.
    on = ["--model", model_folder, "--runs", made / "runs.parquet", "--on", dataset_folder]
    assert cli.run(evaluate.main, [str(a) for a in [*on, "--output", tmp_path / "e.parquet"]]) == 0
    (row,) = pq.read_table(tmp_path / "e.parquet").to_pylist()
    (chosen,) = (r for r in runs if r["chosen"])
    assert (row["accuracy"], row["lr"], row["seed"]) == (chosen["test_accuracy"], chosen["lr"], 3)


def test_a_finished_cell_is_left_alone(model_folder, dataset_folder, tmp_path, capsys):
    run_main(model_folder, dataset_folder, tmp_path)
    before = (tmp_path / "cell" / "runs.parquet").stat().st_mtime_ns
    assert run_main(model_folder, dataset_folder, tmp_path) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (tmp_path / "cell" / "runs.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 61}, "60 training images"),
        ({"accumulation": 3}, "does not divide"),
        ({"stepz": 3}, "finetune.stepz: unknown key"),
        ({"steps": "12"}, "must be a whole number"),
    ],
)
def test_bad_settings_stop_at_the_first_line(changes, message, model_folder, dataset_folder, tmp_path, capsys):
    params = ["--params", json.dumps(SETTINGS | changes)]
    assert run_main(model_folder, dataset_folder, tmp_path, *params) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cell").exists()


def test_other_classes_are_refused_before_any_image_is_read(model_folder, dataset_folder, tmp_path, capsys):
    """Also where their number is the same: a renamed folder shifts the order of all."""
    run_main(model_folder, dataset_folder, tmp_path)
    other = shutil.copytree(dataset_folder, tmp_path / "other")
    record = json.loads((other / "dataset.json").read_text())
    names = list(record["classes"])
    record["classes"] = ["aaa", *names[:-1]]
    (other / "dataset.json").write_text(json.dumps(record))
    runs, output = tmp_path / "cell" / "runs.parquet", tmp_path / "e.parquet"
    arguments = ["--model", model_folder, "--runs", runs, "--on", other, "--output", output]
    assert cli.run(evaluate.main, [str(a) for a in arguments]) == 2
    assert f"its class 0 is 'aaa', where the cell was trained {names[0]!r} is" in capsys.readouterr().err
    assert not output.exists()


def test_the_chosen_run_is_evaluated_in_its_own_precision(model_folder, dataset, dataset_folder, tmp_path, monkeypatch):
    run_main(model_folder, dataset_folder, tmp_path, "--params", json.dumps(SETTINGS | {"precision": "bf16"}))
    seen = []
    logits = vit.logits
    monkeypatch.setattr(
        "vit_plasticity.vit.logits", lambda *a, **k: seen.append(torch.is_autocast_enabled("cpu")) or logits(*a, **k)
    )
    trained = tmp_path / "cell" / "trained.safetensors"
    (row,) = evaluation.evaluate(model_folder, trained, [dataset], torch.device("cpu"))
    runs = pq.read_table(tmp_path / "cell" / "runs.parquet").to_pylist()
    (chosen,) = (r for r in runs if r["chosen"])
    assert (row["accuracy"], row["lr"]) == (chosen["test_accuracy"], chosen["lr"])
    assert set(seen) == {True}


def test_a_damaged_file_of_tensors_is_refused(tmp_path):
    (tmp_path / "trained.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"cannot be used \(.*; delete it, and fine-tune the cell again"):
        evaluation.evaluate(tmp_path, tmp_path / "trained.safetensors", [], torch.device("cpu"))


def test_tensors_that_do_not_fit_are_refused(model, tmp_path):
    with pytest.raises(InputError, match="do not fit"):
        evaluation.restore(model, {"head.weight": torch.zeros(3, 24), "blocks.0.norm1.weight": torch.zeros(5)}, 3)
    with pytest.raises(InputError, match=r"head\.weight is missing"):
        evaluation.restore(model, {}, 3)
