"""Two processes that want one cell, as after a killed Snakemake: one trains, the other waits, none is in the way."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from kills import jobs_of
from one_cell import Cell, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@contextmanager
def frozen_owner(cell):
    """A process of the cell, stopped in the middle of training; (its client, the job's process id)."""
    owner = cell.start()
    wait_for(lambda: owner.poll() is not None or any(cell.work.glob("*/*.checkpoint")))
    (job,) = jobs_of(cell.work)
    assert job.freeze()
    try:
        yield owner, job.pid
    finally:
        owner.kill()
        owner.wait()


def waiting(cell):
    """A second process of the cell, once it waits for the first."""
    process = cell.start()
    said = process.stdout.readline()
    assert "waiting for another process that owns" in said
    return process


def test_second_process_waits_and_finds_the_work_done(cell, undisturbed):
    with frozen_owner(cell) as (owner, job):
        second = waiting(cell)
        os.kill(job, signal.SIGCONT)
        assert "outcome=finished" in owner.communicate(timeout=60)[0]
        said = second.communicate(timeout=60)[0]
    assert (owner.returncode, second.returncode) == (0, 0)
    assert "complete: another process made" in said
    assert "outcome" not in said
    assert cell.numbers() == undisturbed


def test_second_process_goes_on_where_a_killed_owner_was(cell, undisturbed):
    with frozen_owner(cell) as (owner, job):
        second = waiting(cell)
        os.kill(job, signal.SIGKILL)
        assert owner.wait(60) == 128 + signal.SIGKILL
        said = second.communicate(timeout=60)[0]
    assert second.returncode == 0
    assert "going on from step" in said
    assert cell.numbers() == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_waiting_process_can_be_stopped(cell, number):
    with frozen_owner(cell) as (owner, job):
        second = waiting(cell)
        second.send_signal(number)
        assert second.wait(60) != 0
        os.kill(job, signal.SIGCONT)
        owner.communicate(timeout=60)
    assert owner.returncode == 0


@pytest.mark.parametrize("folder_too", [False, True], ids=["files", "folder"])
def test_cell_whose_outputs_were_removed_unseen_is_brought_back(cell, undisturbed, folder_too):
    """As the next Snakemake does with a cell that ended after the first Snakemake was killed."""
    cell.run()
    for file in cell.output.parent.iterdir():
        file.unlink()
    if folder_too:
        cell.output.parent.rmdir()
    said = cell.run().stdout
    assert "complete:" in said
    assert "outcome" not in said
    assert cell.numbers() == undisturbed


def test_cell_on_another_disk_is_trained_where_no_link_can_be_made(smoke, cell, undisturbed, small_disk):
    cell.run()
    other = Cell(cell.folder, smoke, output=small_disk / "cell" / "runs.parquet")
    other.output = small_disk / "cell" / "runs.parquet"
    assert "outcome=finished" in other.run().stdout
    assert other.numbers() == undisturbed


def test_settings_decide_what_is_complete(cell, smoke):
    """A finished cell is left alone by a process of the same settings only."""
    cell.run()
    assert "outcome" not in cell.run().stdout
    other = Cell(cell.folder, smoke, {"steps": 8})
    assert "outcome=finished" in other.run().stdout
    assert len(other.numbers()[1][0]["step"]) == 8


def test_half_written_files_of_a_killed_process_are_removed(cell):
    cell.output.parent.mkdir(parents=True)
    left, foreign = cell.output.with_name(".trained.safetensors.x1y2z3"), cell.output.with_name(".mine")
    for file in (left, foreign):
        file.write_text("half")
    cell.run()
    assert not left.exists()
    assert foreign.exists()


def test_signal_before_training_stops_at_once(cell):
    """From the first moment of a process on: no signal is lost."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vit_plasticity.warm", "finetune", *cell.arguments], cwd=cell.folder,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_for(lambda: process.poll() is not None or any(jobs_of(cell.work)))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not cell.output.exists()
