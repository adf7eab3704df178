"""What sites differ in: names, how memory is asked for, busy controllers, nodes that cannot, and login nodes.

Each test has one cell to make, and is over as soon as its job has been looked at.
"""

import shlex

import pytest
from study import SLURM, cell_processes

CELL = "digits_c_contrast_5/mha/seed=0"
RUNS = f"results/smoke/finetune/vit_smoke/{CELL}/runs.parquet"


@pytest.fixture
def one_cell(reference, tmp_path):
    """The study of a site, with one cell still to make."""
    return lambda **site: reference.copy(tmp_path / "study", without=[CELL], **site)


def submitted(slurm, study, **variables):
    """The job of the cell, waiting, as scontrol shows it."""
    with slurm.drained(), study.start(*SLURM, RUNS, **variables):
        [job] = slurm.wait_for(lambda: slurm.jobs("PENDING", folder=study.folder).values(), "the cell to be submitted")
        slurm.end_jobs(study.folder)
    return job


# As names of Python: functions, a module that Snakemake's expressions know, a number, an operator.
@pytest.mark.parametrize(
    ("account", "partition", "constraint"),
    [
        ("all", "open", "max"),
        ("123456", "sum", '"max|input"'),
        ('"007"', "shutil", '"[max|input]"'),
        ("or", "in", "max&input"),
    ],
)
def test_any_name_of_a_site_reaches_slurm(slurm, one_cell, account, partition, constraint):
    with slurm.partition(partition):
        job = submitted(slurm, one_cell(account=account, gpu_partition=partition, gpu_constraint=constraint))
    expected = {"Account": account, "Partition": partition, "Features": constraint}
    assert {key: job[key] for key in expected} == {key: name.strip('"') for key, name in expected.items()}


@pytest.mark.parametrize("name", ["no", "1.5", "2024-01-01"])
def test_a_name_that_yaml_reads_as_something_else_is_refused(slurm, one_cell, name):
    with one_cell(account=name).start(*SLURM, RUNS) as snakemake:
        assert snakemake.wait(60) != 0


@pytest.mark.parametrize(("memory", "per"), [("job", "Node"), ("cpu", "CPU")])
def test_memory_is_asked_for_as_the_site_wants_it(slurm, one_cell, memory, per):
    job = submitted(slurm, one_cell(memory=memory, cpus=2))
    assert job[f"MinMemory{per}"] == {"job": "16000M", "cpu": "8000M"}[memory]


def test_where_memory_cannot_be_asked_for_it_is_not(slurm, one_cell):
    before = len(slurm.submitted())
    submitted(slurm, one_cell(memory="null"))
    [line] = slurm.submitted()[before:]
    assert "--mem" not in line.partition("--wrap")[0]


def test_a_quality_of_service_is_passed_on(slurm, one_cell):
    before = len(slurm.submitted())
    with one_cell(qos="max").start(*SLURM, "--retries", "0", RUNS) as snakemake:
        slurm.wait_for(lambda: slurm.submitted()[before:], "the cell to be submitted")
        snakemake.kill()
    slurm.end_jobs()
    assert "--qos=max" in slurm.submitted()[before]


def test_a_busy_controller_costs_no_attempt(slurm, one_cell):
    slurm.be_busy_once()
    before = len(slurm.submitted())
    job = submitted(slurm, one_cell())
    assert job["MinMemoryNode"] == "16000M"
    first, second = slurm.submitted()[before:]
    assert first == second


@pytest.mark.parametrize(
    ("device", "words", "tries"),
    [("auto", "failed: a GPU was given to this job", 3), ("cuda:97", "error: --device cuda:97", 1)],
)
def test_what_a_node_cannot_do_is_tried_elsewhere_and_refused_input_is_not(slurm, one_cell, device, words, tries):
    study = one_cell()
    with study.start(*SLURM, RUNS, VIT_PLASTICITY_DEVICE=device) as snakemake:
        assert snakemake.wait(240) == 1
    jobs = slurm.jobs(folder=study.folder)
    assert len(jobs) == tries
    assert words in study.said()
    assert ("not submitted a second time" in study.said()) == (tries == 1)
    logs = [log.read_text() for log in (study.folder / "logs/slurm").rglob("*.log")]
    assert len(logs) == tries
    assert not any("Trying to restart" in log for log in logs)


def test_snakemake_runs_inside_a_job(slurm, one_cell):
    study = one_cell(cpus=2)
    outer = slurm.submit(f"cd {study.folder}; {shlex.join(study.command(*SLURM, RUNS))}", "--cpus-per-task=1")
    job = slurm.wait_for(lambda: next(iter(slurm.jobs("RUNNING", folder=study.folder)), None), "the cell to start")
    [environment] = slurm.wait_for(lambda: cell_processes(slurm, job).values(), "the cell to train")
    assert environment["SLURM_CPUS_PER_TASK"] == "2"
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
    slurm.wait_for(lambda: slurm.job(outer)["JobState"] in ended, "Snakemake to end", 400, 1)
    assert slurm.job(outer)["JobState"] == "COMPLETED"
    assert (study.folder / RUNS).exists()
