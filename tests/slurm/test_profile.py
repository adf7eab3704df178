"""`snakemake --profile slurm` on a workflow of two jobs: GPUs, sbatch lines, and what a wrong site block says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SNAKEFILE = """\
rule all:
    input:
        expand("{name}.txt", name=["a", "b"]),

rule finetune:
    output:
        "{name}.txt",
    log:
        "logs/{name}.log",
    shell:
        "echo $CUDA_VISIBLE_DEVICES > {output} 2> {log}; sleep 2"
"""


@pytest.fixture
def workflow(slurm, tmp_path):
    """Run Snakemake on the toy workflow with the profile, its site block filled in; the finished process."""
    shutil.copytree(ROOT / "profiles" / "slurm", tmp_path / "slurm")
    (tmp_path / "Snakefile").write_text(SNAKEFILE)

    def run(*options, **site):
        fill_in(tmp_path / "slurm" / "config.yaml", **site)
        command = ["snakemake", "--profile", "slurm", "--slurm-init-seconds-before-status-checks", "1", *options]
        return subprocess.run(command, cwd=tmp_path, env=slurm.env, capture_output=True, text=True, timeout=90)

    return run


def fill_in(profile, **site):
    """Fill in the site block of a profile, as a site would: `account`, `cpu_partition`, `gpu_partition`, `gres`, …"""
    text = profile.read_text()
    for name, value in site.items():
        text, n = re.subn(rf"^(  {name}:) \S+", rf"\1 {value}", text, flags=re.MULTILINE)
        assert n == 1, f"{profile} has no {name} to fill in"
    profile.write_text(text)


def test_two_jobs_at_once_each_on_its_own_gpu(slurm, workflow, tmp_path):
    done = workflow()
    assert done.returncode == 0, done.stderr
    assert {(tmp_path / f"{name}.txt").read_text().strip() for name in "ab"} == {"0", "1"}


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"gpu_partition": "nosuch"}, "invalid partition specified: nosuch"),
        ({"gres": "gpu:nosuch:1"}, "Requested node configuration is not available"),
        ({"gres": "gpus:1"}, "Invalid generic resource (gres) specification"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_site_value_is_an_error_with_the_words_of_slurm(slurm, workflow, site, words):
    done = workflow("--retries", "0", **site)
    assert done.returncode == 1
    assert words in done.stderr
    assert not slurm.jobs("", "PENDING", "RUNNING")
