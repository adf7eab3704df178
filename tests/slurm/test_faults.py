"""The smoke study on SLURM, through what happens to jobs on a cluster, ends with the tables of a local run.

No cell is lost, and none trained twice: what a cell had finished stays, and one that was asked to stop goes on where
it was.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from study import SLURM, FrozenCell, assert_same_tables, cell_processes

CELLS = [f"digits_c_contrast_5/{component}/seed={seed}" for component in ("mha", "ln1") for seed in (0, 1)]
TABLES = "results/smoke/tables/finetune.parquet"


@pytest.fixture(scope="module")
def bad_day(slurm, reference, tmp_path_factory):
    """A study with four cells still to do, when it is done: each met with something in the middle of its work."""
    study = reference.copy(tmp_path_factory.mktemp("bad_day") / "study", without=CELLS, gpu_partition="preempt")
    cells = frozen_as_they_start(slurm, study)
    with study.start(*SLURM, TABLES) as snakemake:
        study.preempted, study.killed = next(cells), next(cells)
        with slurm.drained():
            study.killed.kill()
            slurm.wait_for(lambda: ended(slurm, study.killed), "the killed cell to be gone")
            slurm.preempt()
            time.sleep(3)
            study.running_while_drained = slurm.jobs("RUNNING", folder=study.folder).keys()
        study.preempted.thaw_when_asked_to_stop()

        study.late, study.cancelled = next(cells), next(cells)
        slurm.end_time_now(study.late.job_id)
        slurm.cancel(study.cancelled.job_id)
        study.cancelled.thaw_when_asked_to_stop()
        study.late.thaw_when_asked_to_stop()
        slurm.wait_for(lambda: slurm.start_requeued() or snakemake.poll() is not None, "the study to end", 400, 1)
    assert snakemake.returncode == 0, study.said()
    return study


def frozen_as_they_start(slurm, study):
    """Yield the cells of a study as their first jobs start, each frozen in the middle of its work."""
    seen, pool = set(), ThreadPoolExecutor()

    def starting():
        running = slurm.jobs("RUNNING", folder=study.folder, rule="finetune")
        return {job["Comment"]: job_id for job_id, job in running.items() if job["Comment"] not in seen}

    while True:
        jobs = slurm.wait_for(starting, "a cell to start", 180)
        seen.update(jobs)
        yield from pool.map(lambda job_id: FrozenCell(slurm, job_id), sorted(jobs.values(), key=int))


def ended(slurm, cell):
    """How the job of a cell ended, or "" while it has not."""
    state = slurm.job(cell.job_id)["JobState"]
    return state if state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED") else ""


def test_no_shell_stands_between_snakemake_and_a_cell(bad_day):
    # A shell dies of SIGTERM at once; then Snakemake ends, and SLURM kills the cell that still writes its checkpoint.
    assert "snakemake" in bad_day.late.parent


def test_drained_node_starts_no_cell_until_it_is_resumed(bad_day):
    assert bad_day.running_while_drained == {bad_day.preempted.job_id}


def test_two_cells_at_once_hold_two_gpus(bad_day):
    assert {bad_day.preempted.devices, bad_day.killed.devices} == {"0", "1"}


def test_killed_cell_is_tried_again_and_keeps_its_finished_run(slurm, bad_day):
    assert ended(slurm, bad_day.killed) == "FAILED"
    assert trained(bad_day, bad_day.killed) == {"0.1": 0}


def test_cell_at_its_time_limit_goes_on_where_it_was(slurm, bad_day):
    assert ended(slurm, bad_day.late) in ("TIMEOUT", "FAILED")
    assert list(trained(bad_day, bad_day.late)) == ["0.1"]
    assert 0 < trained(bad_day, bad_day.late)["0.1"] < 100


def test_cancelled_cell_goes_on_where_it_was(slurm, bad_day):
    assert ended(slurm, bad_day.cancelled) == "CANCELLED"
    assert 0 < trained(bad_day, bad_day.cancelled)["0.1"] < 100


def test_preempted_cell_goes_on_where_it_was_under_its_old_id(slurm, bad_day):
    assert slurm.job(bad_day.preempted.job_id)["Restarts"] == "1"
    assert ended(slurm, bad_day.preempted) == "COMPLETED"
    assert 0 < trained(bad_day, bad_day.preempted)["0.1"] < 100


def trained(study, cell):
    """What the last process of a cell trained: learning rate → the step at which it went on."""
    log = study.log(cell.name)
    began = dict(re.findall(r"^lr (\S+): going on from step (\d+)$", log, re.MULTILINE))
    return {lr: int(began.get(lr, 0)) for lr in re.findall(r"^lr=(\S+) outcome=", log, re.MULTILINE)}


def test_bad_day_ends_with_the_tables_of_a_local_run(bad_day, reference):
    assert_same_tables(bad_day, reference)


@pytest.fixture
def orphaned(slurm, reference, tmp_path):
    """A study whose Snakemake was killed while its one cell was in the middle of its work."""
    study = reference.copy(tmp_path / "study", without=CELLS[:1])
    with study.start(*SLURM, TABLES) as snakemake:
        study.orphan = next(frozen_as_they_start(slurm, study))
        snakemake.kill()
        snakemake.wait()
    study.run("--unlock")
    return study


def duplicate(slurm, study):
    """The job that a second Snakemake submitted for the cell of the orphan."""
    jobs = slurm.jobs("RUNNING", "PENDING", folder=study.folder)
    return next((job_id for job_id in jobs if job_id != study.orphan.job_id), None)


def test_duplicate_waits_for_the_orphan_of_a_killed_snakemake_and_leaves(slurm, reference, orphaned):
    with orphaned.start(*SLURM, TABLES) as snakemake:
        job = slurm.wait_for(lambda: duplicate(slurm, orphaned), "the cell to be submitted again")
        slurm.wait_for(
            lambda: "waiting for another process" in orphaned.log(orphaned.orphan.name), "the duplicate to wait", 180
        )
        assert cell_processes(slurm, job)
        orphaned.orphan.thaw()
        assert snakemake.wait(300) == 0, orphaned.said()
    assert ended(slurm, orphaned.orphan) == "COMPLETED"
    assert trained(orphaned, orphaned.orphan) == {}
    assert_same_tables(orphaned, reference)


def test_duplicate_that_starts_after_the_orphan_ended_leaves(slurm, reference, orphaned):
    with orphaned.start(*SLURM, TABLES) as snakemake:
        with slurm.drained():
            slurm.wait_for(lambda: duplicate(slurm, orphaned), "the cell to be submitted again")
            orphaned.orphan.thaw()
            slurm.wait_for(lambda: ended(slurm, orphaned.orphan), "the orphan to end")
        assert snakemake.wait(300) == 0, orphaned.said()
    assert ended(slurm, orphaned.orphan) == "COMPLETED"
    assert trained(orphaned, orphaned.orphan) == {}
    assert_same_tables(orphaned, reference)
