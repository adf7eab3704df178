"""The sbatch that Snakemake finds, in front of a fake one that answers what its script says."""

import os

import pytest

from vit_plasticity.runtime import sbatch

BUSY = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


@pytest.fixture
def submit(tmp_path, monkeypatch, capfd):
    """Submit a job of the run RUN when sbatch and squeue answer as these shell scripts: status, and what was said."""
    monkeypatch.setenv("PATH", f"{sbatch.HERE}{os.pathsep}{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    (tmp_path / "logs").mkdir()
    (tmp_path / "count").write_text("")

    def call(script, *, run="RUN", squeue="", pauses_s=(0, 0, 0)):
        for name, text in {"sbatch": f"echo >> {tmp_path}/count; {script}", "squeue": squeue}.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        names = ["--job-name", run, "--output", str(tmp_path / "logs/%j.log"), "--comment", "rule_finetune_wildcards_a"]
        status = sbatch.main(["--parsable", *names, "--wrap=true"], pauses_s)
        return status, capfd.readouterr()

    call.asked = lambda: len((tmp_path / "count").read_text().splitlines())
    call.log = tmp_path / "logs/7.log"
    return call


def test_arguments_status_and_words_are_those_of_the_real_one(submit):
    status, said = submit('echo "$#"; echo no such partition >&2; exit 3')
    assert (status, said.out, said.err) == (3, "8\n", "no such partition\n")
    assert submit.asked() == 1


@pytest.mark.parametrize(("busy", "status", "asked"), [(0, 0, 1), (2, 0, 3), (9, 1, 4)])
def test_a_busy_controller_is_asked_again(submit, tmp_path, busy, status, asked):
    ended, said = submit(f'[ $(wc -l < {tmp_path}/count) -gt {busy} ] && echo 7 || {{ echo "{BUSY}" >&2; exit 1; }}')
    assert (ended, submit.asked()) == (status, asked)
    assert said.out == ("" if status else "7\n")


def test_a_job_that_the_busy_controller_took_is_not_submitted_twice(submit):
    squeue = "echo '6 rule_finetune_wildcards_b'; echo '7 rule_finetune_wildcards_a'"
    status, said = submit(f'echo "{BUSY}" >&2; exit 1', squeue=squeue)
    assert (status, said.out, submit.asked()) == (0, "7\n", 1)


REFUSED = "vit_plasticity.finetune: error: batch_size is 99\n"


@pytest.mark.parametrize(
    ("log", "run", "status"),
    [
        (REFUSED, "RUN", 1),
        (REFUSED, "NEXT", 0),  # the user mended it and started Snakemake again
        ("vit_plasticity.finetune: failed: no GPU", "RUN", 0),
        ("slurmstepd: error: Detected 1 oom_kill event", "RUN", 0),
        (None, "RUN", 0),
    ],
)
def test_refused_input_is_not_submitted_again_in_the_same_run(submit, log, run, status):
    assert submit("echo 7")[0] == 0
    if log:
        (submit.log.parent / "seed=0.log").write_text(log)
        submit.log.write_text(f"Error in rule x:\n    log: {submit.log.parent}/seed=0.log (check log file(s) for …)\n")
    ended, said = submit("echo 8", run=run)
    assert ended == status
    assert ("batch_size is 99" in said.err) == bool(status)


def test_a_machine_without_slurm_says_so(submit, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{sbatch.HERE}{os.pathsep}{tmp_path / 'nothing'}")
    assert sbatch.main(["--wrap=true"]) == 127
