"""`snakemake --profile slurm`: what it asks SLURM for, what it says of a wrong site block, and what Ctrl-C leaves."""

import re
import signal
import time
from pathlib import Path

import pytest
from study import SLURM

GOLDEN = Path(__file__).with_name("sbatch.golden")
FETCHED_MODEL = """\
models: [vit_local]
catalog: {models: {vit_local: {local: resources/models/vit_smoke}}}
evaluate_on: []
"""


@pytest.fixture
def drained(slurm):
    """The cluster, while its node takes no job."""
    with slurm.drained():
        yield slurm


@pytest.fixture
def study(reference, tmp_path):
    """The study with another model, none of whose jobs has run, on a site that filled in its block."""
    site = {"account": "lab", "cpu_partition": "normal", "gpu_partition": "preempt", "gres": "gpu:fake:1", "cpus": 2}
    study = reference.copy(tmp_path / "study", **site)
    (study.folder / "fetched.yaml").write_text(FETCHED_MODEL)
    study.config.append("fetched.yaml")
    return study


def test_sbatch_lines_of_each_rule_and_ctrl_c(drained, study):
    before, jobs = len(drained.submitted()), study.jobs_of_the_cluster()
    with study.start(*SLURM) as snakemake:
        known = lambda: study.said().count("has been submitted with SLURM jobid") == jobs.total()  # noqa: E731
        drained.wait_for(known, "Snakemake to know all jobs that it submitted", 180)
        time.sleep(1)  # it says so a moment before it could cancel the last of them
        assert len(drained.jobs("PENDING", folder=study.folder)) == jobs.total()
        snakemake.send_signal(signal.SIGINT)
        snakemake.wait(180)
    assert not drained.jobs("PENDING", "RUNNING", folder=study.folder)
    lines = sbatch_lines(drained.submitted()[before:], study.folder)
    asked_for = {f"rule_{rule}" for rule in jobs}
    golden = [line for line in GOLDEN.read_text().splitlines() if comment(line) in asked_for]
    assert lines == golden, "\n".join(lines)
    assert {comment(line) for line in lines} == asked_for


def sbatch_lines(submitted, folder):
    """The different sbatch lines, without what names one job of a rule and without the command that it wraps."""
    lines = set()
    for line in submitted:
        line = line.partition(" --wrap=")[0].replace(str(folder), "FOLDER")
        line = re.sub(r"--job-name \S+", "--job-name RUN", line)
        line = re.sub(r"(rule_[a-z]+)/\S+/%j", r"\1/WILDCARDS/%j", line)
        lines.add(re.sub(r"(rule_[a-z]+_wildcards)_\S+", r"\1_WILDCARDS", line))
    return [f"sbatch {line}" for line in sorted(lines)]


def comment(line):
    """The rule that an sbatch line is for, as its comment tells it."""
    return re.search(r"--comment (rule_[a-z]+)", line)[1]


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"gpu_partition": "nosuch"}, "invalid partition specified: nosuch"),
        ({"gres": "gpu:nosuch:1"}, "Requested node configuration is not available"),
        ({"gres": "gpus:1"}, "Invalid generic resource (gres) specification"),
        ({"cpus": "1000"}, "More processors requested than permitted"),
    ],
)
def test_wrong_site_value_is_an_error_in_the_words_of_slurm(slurm, reference, tmp_path, site, words):
    cell = "digits_c_contrast_5/mha/seed=0"
    study = reference.copy(tmp_path / "study", without=[cell], **site)
    with study.start(*SLURM, "--retries", "0", f"results/smoke/finetune/vit_smoke/{cell}/runs.parquet") as snakemake:
        assert snakemake.wait(180) == 1
    assert words in study.said()
    assert not slurm.jobs("PENDING", "RUNNING", folder=study.folder)
