"""A damaged or foreign checkpoint is refused with a message; the one before it, or the start, is used; the result is
the same to the bit."""

import re
import shutil
import signal

import pytest
import safetensors
from one_cell import Cell, wait_for
from processes import copy_study

from vit_plasticity.training.cell import OUTPUTS


def went_on_from(said):
    """The step from which a cell says that it went on; 0 if it says nothing."""
    found = re.search(r"going on from step (\d+)", said)
    return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def stopped(smoke, warm_worker, tmp_path_factory):
    """A `Cell` that was stopped when it had two generations of its checkpoint. To be copied, not changed."""
    cell = Cell(tmp_path_factory.mktemp("stopped"), smoke)
    cell.said = cell.interrupted()
    return cell


@pytest.fixture
def again(stopped, smoke, tmp_path):
    """A copy of the stopped cell."""
    cell = Cell(tmp_path, smoke)
    shutil.copytree(stopped.work, cell.work)
    return cell


@pytest.fixture(scope="module")
def steps(stopped, smoke, tmp_path_factory):
    """The steps of the two generations, as the cell tells them when it goes on from each."""
    told = []
    for kept in (0, 1):
        cell = Cell(tmp_path_factory.mktemp("steps"), smoke)
        shutil.copytree(stopped.work, cell.work)
        cell.checkpoints()[1 - kept].unlink()
        told.append(went_on_from(cell.run().stdout))
    return told


def test_stopped_cell_goes_on_where_it_was(stopped, again, steps, undisturbed):
    newest, older = steps
    assert f"stopped by SIGTERM at step {newest} " in stopped.said
    assert 0 < older < newest
    assert went_on_from(again.run().stdout) == newest
    assert again.numbers() == undisturbed


def test_nothing_is_left_of_a_finished_cell_but_its_files(again):
    again.run()
    assert {file.name for file in again.output.parent.iterdir()} == {*OUTPUTS, "runs"}
    assert {file.name for file in again.work.iterdir()} == {"lr=0.1.run", "lr=0.1.tensors"}
    assert (again.work / "lr=0.1.tensors").samefile(again.output.with_name("trained.safetensors"))  # once on the disk


def test_damaged_checkpoint_gives_way_to_the_one_before(again, steps, undisturbed):
    newest = again.checkpoints()[0]
    data = newest.read_bytes()
    newest.write_bytes(data[:-1] + bytes([data[-1] ^ 128]))
    said = again.run().stdout
    assert f"checkpoint {newest} refused (" in said
    assert went_on_from(said) == steps[1]
    assert again.numbers() == undisturbed


def test_two_damaged_checkpoints_give_way_to_the_start(again, undisturbed):
    for file in again.checkpoints():
        file.write_bytes(file.read_bytes()[:-5])
    said = again.run().stdout
    assert said.count("refused (its checksum does not match: it is damaged)") == 2
    assert went_on_from(said) == 0
    assert again.numbers() == undisturbed


def test_killed_between_two_generations(again, steps, undisturbed):
    """After the newest was made the previous one, and before the new one got its name, only the previous is there."""
    newest, previous = again.checkpoints()
    newest.replace(previous)
    assert went_on_from(again.run().stdout) == steps[0]
    assert again.numbers() == undisturbed


FOREIGN = {
    "another seed": {"seed": 1},
    "another component": {"component": "ln1"},
    "another rev": {"rev": 2},
    "other steps": {"params": {"steps": 64}},
}


@pytest.mark.parametrize("options", FOREIGN.values(), ids=FOREIGN)
def test_checkpoint_of_another_cell_is_refused(smoke, again, undisturbed, options):
    """Put into our work folder, it is refused by its key."""
    other = Cell(again.folder / "other", smoke, **options)
    other.interrupted()
    foreign, ours = other.checkpoints(), again.checkpoints()
    keys = [safetensors.safe_open(file[0], "pt").metadata()["key"] for file in (foreign, ours)]
    assert keys[0] != keys[1]
    for mine, theirs in zip(ours, foreign, strict=True):
        theirs.replace(mine)
    said = again.run().stdout
    assert f"refused (it belongs to {keys[0]}, not to {keys[1]})" in said
    assert went_on_from(said) == 0
    assert again.numbers() == undisturbed


def test_other_data_or_weights_start_anew(smoke, again, tmp_path):
    """The key holds the fingerprints of model and dataset, so that a new fetch never meets old work."""
    changed = copy_study(smoke, tmp_path / "changed", "results")
    about = changed / "resources" / "models" / "vit_smoke" / "provenance.json"
    about.write_text(re.sub(r'"fingerprint": "\w+"', '"fingerprint": "0"', about.read_text()))
    cell = Cell(again.folder, changed)
    assert went_on_from(cell.run().stdout) == 0


def test_damaged_finished_run_is_trained_again(smoke, warm_worker, tmp_path):
    """A cell of two rates, killed in its second: the first is kept, and made again only if its file is damaged."""
    rates = {"lrs": [0.1, 0.2]}
    whole = Cell(tmp_path / "whole", smoke, rates)
    whole.run()
    for damaged in (False, True):
        cell = Cell(tmp_path / str(damaged), smoke, rates)
        process = cell.start()
        wait_for(lambda: process.poll() is not None or any(cell.work.glob("lr=0.2.checkpoint")))  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.communicate()
        finished = cell.work / "lr=0.1.run"
        if damaged:
            finished.write_bytes(finished.read_bytes()[:-1])
        said = cell.run().stdout
        assert ("lr=0.1 outcome=" in said) is damaged
        assert ("refused" in said) is damaged
        assert "lr 0.2: going on from step" in said
        assert cell.numbers() == whole.numbers()
