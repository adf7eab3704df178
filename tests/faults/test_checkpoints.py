"""A damaged or foreign checkpoint is refused with a message; the one before it, or the start, is used; the result is
the same to the bit."""

import re
import shutil
import signal

import pytest
from one_cell import Cell, wait_for
from processes import copy_study


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
    shutil.copytree(stopped.work, tmp_path / "work")
    return Cell(tmp_path, smoke)


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
    assert {file.name for file in again.output.parent.iterdir()} == {
        "runs.parquet",
        "history.parquet",
        "trained.safetensors",
    }
    left = [file.name for file in again.work.rglob("*") if file.is_file()]
    assert sorted(left) == ["history.parquet", "runs.parquet", "trained.safetensors"]  # links, until Snakemake ends


DAMAGES = {
    "no byte": lambda data: b"",
    "one byte": lambda data: data[:1],
    "header only": lambda data: data[:60],
    "last byte missing": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "byte too many": lambda data: data + b"\0",
    "first byte flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "checksum flipped": lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
    "last byte flipped": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "middle byte flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]
    ),
    "zeros": lambda data: bytes(len(data)),
    "pickle": lambda data: b"\x80\x04cos\nsystem\n.",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_gives_way_to_the_one_before(again, steps, undisturbed, damage):
    newest = again.checkpoints()[0]
    newest.write_bytes(damage(newest.read_bytes()))
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
    "another rate": {"params": {"lrs": [0.2]}},
}


@pytest.mark.parametrize("options", FOREIGN.values(), ids=FOREIGN)
def test_checkpoint_of_another_cell_is_refused(smoke, again, undisturbed, options):
    """Found in its own work folder, it is not looked for; put into ours, it is refused by its key."""
    other = Cell(again.folder / "other", smoke, **options)
    other.interrupted()
    foreign, ours = other.checkpoints(), again.checkpoints()
    assert foreign[0].parent.name != ours[0].parent.name
    for mine, theirs in zip(ours, foreign, strict=True):
        theirs.replace(mine)
    said = again.run().stdout
    assert f"refused (it belongs to {foreign[0].parent.name}, not to {ours[0].parent.name})" in said
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
        wait_for(lambda: process.poll() is not None or any(cell.work.glob("*/run-1.checkpoint")))  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (finished,) = cell.work.glob("*/finished-0.checkpoint")
        if damaged:
            finished.write_bytes(finished.read_bytes()[:-1])
        said = cell.run().stdout
        assert ("lr=0.1 outcome=" in said) is damaged
        assert ("refused" in said) is damaged
        assert "lr 0.2: going on from step" in said
        assert cell.numbers() == whole.numbers()
