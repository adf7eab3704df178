"""Probes at every tap: the taps are where they say, the last one is the study's probe, and cells are the right ones."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from small_cells import DIVERGES, finetuned
from small_vit import small_vit

from vit_plasticity import probe, taps, vit
from vit_plasticity.runtime import cli
from vit_plasticity.training import finished

TAPS = [("embed", None), ("mha", 0), ("ffn", 0), ("mha", 1), ("ffn", 1)]


def run(program, output, model_folder, dataset_folder, *more):
    arguments = ["--model", model_folder, "--dataset", dataset_folder, "--output", output, *more]
    assert cli.run(program.main, [*map(str, arguments)]) == 0
    return pq.read_table(output).to_pylist()


@pytest.fixture(scope="module")
def cells(tmp_path_factory, model_folder, dataset_folder):
    """runs.parquet of the cells of mha from two seeds, and of ln1, where everything diverges."""
    folder, where = tmp_path_factory.mktemp("cells"), (model_folder, dataset_folder)
    mha = [finetuned(folder, *where, "mha", seed) for seed in (0, 1)]
    return [*mha, finetuned(folder, *where, "ln1", **DIVERGES)]


@pytest.mark.parametrize("changes", [{}, {"init_values": 0.3, "reg_tokens": 2}, {"class_token": False}], ids=str)
@torch.inference_mode()
def test_a_tap_is_the_residual_stream_after_its_branch(changes):
    model = small_vit(**changes | ({"global_pool": "avg"} if "class_token" in changes else {}))
    images = torch.randn(3, 3, 16, 16)
    found = vit.features_by_tap(model, images, "mean")
    assert [*found] == TAPS
    stream = vit.embed(model, images)
    expected = [stream]
    for block in model.blocks:
        stream = stream + block.ls1(block.attn(block.norm1(stream)))
        expected.append(stream)
        stream = stream + block.ls2(block.mlp(block.norm2(stream)))
        expected.append(stream)
    for features, tokens in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(features, tokens.mean(dim=1))
    assert torch.equal(found["ffn", 1], vit.features(model, images, "mean"))
    assert not model.blocks[0].norm1._forward_pre_hooks


def test_the_class_token_is_read_alone(model):
    images = torch.randn(2, 3, 16, 16)
    found = vit.features_by_tap(model, images, "class")
    torch.testing.assert_close(found["embed", None], vit.embed(model, images)[:, 0])


@pytest.mark.parametrize("params", [{}, {"pool": "class", "fit_on": "train_and_val"}], ids=str)
def test_the_last_tap_is_the_probe_of_the_study(params, model_folder, dataset_folder, tmp_path):
    where, given = (model_folder, dataset_folder), ("--params", json.dumps(params))
    (expected,) = run(probe, tmp_path / "probe.parquet", *where, *given)
    *_, last = run(taps, tmp_path / "taps.parquet", *where, *given)
    assert (last["tap"], last["block"], last["component"], last["seed"]) == ("ffn", 1, None, None)
    for name in ("model", "dataset", "accuracy", "converged", "n_iter", "n_train", "n_test", "n_features"):
        assert last[name] == expected[name]


def test_each_component_is_probed_in_its_best_cell_on_validation(cells, model_folder, dataset_folder, tmp_path):
    rows = run(taps, tmp_path / "t.parquet", model_folder, dataset_folder, "--runs", *cells)
    assert [(row["tap"], row["block"]) for row in rows] == 3 * TAPS
    pretrained, mha, ln1 = rows[:5], rows[5:10], rows[10:]
    validated = [max(row["val_accuracy"] for row in pq.read_table(path).to_pylist()) for path in cells[:2]]
    best = validated.index(max(validated))
    assert {(row["component"], row["seed"]) for row in mha} == {("mha", best)}
    # Attention was trained: nothing before it moved, everything after it did.
    assert {**mha[0], "component": None, "seed": None} == pretrained[0]
    assert [row["n_iter"] for row in mha[1:]] != [row["n_iter"] for row in pretrained[1:]]
    # What diverged left no model: it is told, not left out.
    assert {(row["component"], row["accuracy"], row["converged"]) for row in ln1} == {("ln1", None, None)}


def test_the_first_of_equally_good_cells_is_taken_and_a_diverged_one_last():
    def cell(component, seed, accuracy):
        run = None if accuracy is None else {"val_accuracy": accuracy}
        return finished.Finished(component, seed, {}, "", run, None)

    some = [cell("mha", 0, None), cell("fc1", 0, 0.5), cell("mha", 1, 0.0), cell("fc1", 1, 0.5), cell("fc1", 2, 0.6)]
    assert [(one.component, one.seed) for one in finished.best_by_validation(some)] == [("mha", 1), ("fc1", 2)]
    assert finished.best_by_validation(some[1:4:2])[0].seed == 0


def test_other_tables_and_cells_of_another_model_are_refused(cells, model_folder, dataset_folder, tmp_path, capsys):
    arguments = ["--dataset", dataset_folder, "--output", tmp_path / "t.parquet", "--runs"]
    history = cells[0].with_name("history.parquet")
    assert cli.run(taps.main, [*map(str, ["--model", model_folder, *arguments, history])]) == 2
    assert "was written by stage 'history'; name the runs.parquet of a cell" in capsys.readouterr().err
    vit.save(small_vit(), tmp_path / "other", {"test": True})
    (tmp_path / "other" / "provenance.json").write_text('{"fingerprint": "other"}')
    assert cli.run(taps.main, [*map(str, ["--model", tmp_path / "other", *arguments, cells[0]])]) == 2
    assert "fine-tuned with another model than the one given" in capsys.readouterr().err
    assert not (tmp_path / "t.parquet").exists()
