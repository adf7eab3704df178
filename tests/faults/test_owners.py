"""Two processes that want one cell, as after a killed Snakemake: one trains, the other waits, none is in the way."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from kills import jobs_of
from one_cell import Cell, wait_for
from processes import copy_checkout, stage

from vit_plasticity.training.cell import OUTPUTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@contextmanager
def frozen_owner(cell):
    """A process of the cell, stopped in the middle of training; (its client, the job's process id)."""
    owner = cell.start()
    wait_for(lambda: owner.poll() is not None or any(cell.work.glob("*.checkpoint")))
    (job,) = jobs_of(cell.output.parent)
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
    assert "was made already; nothing to do" in said
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


def test_removed_cell_is_made_again(cell, undisturbed):
    cell.run()
    shutil.rmtree(cell.output.parent)
    assert "outcome=finished" in cell.run().stdout
    assert cell.numbers() == undisturbed


def test_cell_that_ended_unseen_keeps_its_runs(cell, undisturbed):
    """The next Snakemake removes the outputs of a cell that ended after the first was killed, and its runs serve."""
    cell.run()
    for name in OUTPUTS:
        cell.output.with_name(name).unlink()
    said = cell.run().stdout
    assert "finished before, by the same code" in said
    assert "outcome" not in said
    assert cell.numbers() == undisturbed


def test_other_code_brings_nothing_back(cell, smoke, tmp_path):
    """A changed source file, also in a checkout without a commit, trains a cell again."""
    cell.run()
    for name in OUTPUTS:
        cell.output.with_name(name).unlink()
    checkout = copy_checkout(tmp_path / "checkout")
    with (checkout / "src" / "vit_plasticity" / "training" / "step.py").open("a") as file:
        file.write("# another version\n")
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    said = stage("finetune", *cell.arguments, cwd=cell.folder, warm=False, env=environment).stdout
    assert "lr=0.1 outcome=finished" in said


def test_each_run_is_keyed_alone(smoke, warm_worker, tmp_path):
    """Adding a learning rate trains that run; removing one drops it; what was best is trained again if it is gone."""

    def trained(lrs):
        said = Cell(tmp_path, smoke, {"lrs": lrs, "steps": 20}).run().stdout
        return re.findall("^lr=(\\S+) outcome", said, re.MULTILINE)

    def numbers(folder, lrs):
        cell = Cell(folder, smoke, {"lrs": lrs, "steps": 20})
        cell.run()
        return cell.numbers()

    assert trained([1e-5, 0.1]) == ["1e-05", "0.1"]
    assert trained([1e-5, 1e-4, 0.1]) == ["0.0001"]
    assert numbers(tmp_path, [1e-5, 1e-4, 0.1]) == numbers(tmp_path / "at once", [1e-5, 1e-4, 0.1])
    assert trained([1e-4, 0.1]) == []
    assert not [*tmp_path.glob("cell/runs/lr=1e-05.*")]
    again = trained([1e-4])  # whose tensors went when 0.1 was better
    assert again == ["0.0001"]
    assert numbers(tmp_path, [1e-4]) == numbers(tmp_path / "alone", [1e-4])


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
    wait_for(lambda: process.poll() is not None or any(jobs_of(cell.output.parent)))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not cell.output.exists()
