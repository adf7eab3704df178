"""Two Snakemakes in one folder: of one study, the second stops; of two studies that share resources, both run."""

import os
import signal
import subprocess
import sys

import pytest
from kills import jobs_of
from one_cell import wait_for
from processes import command, differences, remove, smoke_config, snakemake, write_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_one_study_and_two(study, smoke, tmp_path):
    """While a cell of the smoke study stands still, another Snakemake of the same study and one of another study
    come."""
    cell = "results/smoke/finetune/vit_smoke/digits/mha/seed=0/runs.parquet"
    remove(study / cell)
    with subprocess.Popen(command(study, cell), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        wait_for(lambda: first.poll() is not None or jobs_of(study / "results" / "smoke"))
        (job,) = jobs_of(study / "results" / "smoke")
        assert job.freeze()

        same = snakemake(study, check=False)
        assert same.returncode != 0
        assert "Directory cannot be locked" in same.stdout
        assert "Traceback" not in same.stdout

        other = write_config(tmp_path / "other.yaml", smoke_config(study="other", seeds=[0], evaluate_on=[]))
        target = "results/other/predictors/bound/vit_smoke/digits.parquet"
        assert "Finished jobid" in snakemake(study, target, config=other).stdout
        assert (study / target).exists()

        os.kill(job.pid, signal.SIGCONT)
        said = first.communicate(timeout=120)[0]
    assert first.returncode == 0, said
    assert not differences(study, smoke)


def test_second_study_waits_its_turn_for_what_both_must_make(study, tmp_path):
    """While the first Snakemake makes a model, a second one that needs it too is told so, and runs once it is there."""
    remove(study / "resources" / "models" / "vit_smoke")
    other = write_config(tmp_path / "other.yaml", smoke_config(study="other"))
    model, target = "resources/models/vit_smoke", "results/other/predictors/bound/vit_smoke/digits.parquet"
    with subprocess.Popen(command(study, model), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        wait_for(lambda: first.poll() is not None or jobs_of(study / "resources" / "models"))
        (job,) = jobs_of(study / "resources" / "models")
        assert job.freeze()
        second = snakemake(study, target, config=other, check=False)
        assert second.returncode != 0
        assert "Directory cannot be locked" in second.stdout
        os.kill(job.pid, signal.SIGCONT)
        said = first.communicate(timeout=120)[0]
    assert first.returncode == 0, said
    assert "Finished jobid" in snakemake(study, target, config=other).stdout
