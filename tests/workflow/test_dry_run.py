"""What each study would run, and what it costs to find out."""

import collections
import re
import subprocess
import sys

import pytest
from planning import plan
from processes import ROOT, SMOKE, SNAKEMAKE, command

STUDIES = {
    "config.yaml": {
        "fetch_dataset": 4,
        "fetch_model": 1,
        "plasticity": 5,
        "measure": 3,
        "probe": 3,
        "finetune": 3 * 7 * 2,
        "evaluate": 7 * 2,
        "correlate": 1,
        "plots": 1,
    },
    "smoke.yaml": {
        "fetch_dataset": 3,
        "pretrain": 1,
        "plasticity": 2,
        "measure": 2,
        "probe": 2,
        "finetune": 2 * 2 * 2,
        "evaluate": 2 * 2,
        "correlate": 1,
        "plots": 1,
    },
    "paper.yaml": {
        "fetch_dataset": 12,
        "fetch_model": 3,
        "plasticity": 3 * 5,
        "measure": 3 * 11,
        "probe": 11,
        "finetune": 11 * 7 * 3,
        "evaluate": 7 * 3,
        "correlate": 1,
        "plots": 1,
    },
    "dinov2_small.yaml": {
        "fetch_dataset": 2,
        "fetch_model": 1,
        "plasticity": 5,
        "measure": 1,
        "probe": 1,
        "finetune": 10 * 2,
        "correlate": 1,
        "plots": 1,
    },
    "paper_exact.yaml": {
        "fetch_dataset": 12,
        "fetch_model": 1,
        "plasticity": 5,
        "measure": 11,
        "probe": 11,
        "finetune": 11 * 7 * 3,
        "correlate": 1,
        "plots": 1,
    },
    "paper_adamw.yaml": {
        "fetch_dataset": 5,
        "fetch_model": 1,
        "plasticity": 5,
        "measure": 4,
        "probe": 4,
        "finetune": 4 * 6 * 3,
        "correlate": 1,
        "plots": 1,
    },
    "paper_model_size.yaml": {
        "fetch_dataset": 2,
        "fetch_model": 2,
        "plasticity": 2 * 5,
        "measure": 2,
        "probe": 2,
        "finetune": 2 * 6 * 3,
        "correlate": 1,
        "plots": 1,
    },
    "bakeoff.yaml": {
        "fetch_dataset": 5,
        "fetch_model": 1,
        "plasticity": 5,
        "measure": 4,
        "probe": 4,
        "finetune": 4 * 15,
        "correlate": 1,
        "plots": 1,
    },
    "by_block.yaml": {
        "fetch_dataset": 3,
        "fetch_model": 1,
        "plasticity": 4,
        "measure": 2,
        "probe": 2,
        "finetune": 2 * 18,
        "correlate": 1,
        "plots": 1,
    },
    "record.yaml": {
        "fetch_dataset": 7,
        "fetch_model": 1,
        "pretrain": 3,
        "plasticity": 4 * 5,
        "measure": 4 * 6,
        "probe": 4 * 6,
        "finetune": 4 * 6 * 6,
        "correlate": 1,
        "plots": 1,
    },
    "bakeoff_vtab.yaml": {
        "fetch_dataset": 9,
        "fetch_model": 4,
        "plasticity": 4 * 5,
        "measure": 4 * 4,
        "probe": 4 * 4,
        "finetune": 4 * 4 * 8 * 2,
        "correlate": 1,
        "plots": 1,
    },
    "pretrain.yaml": {
        "fetch_dataset": 2,
        "pretrain": 1,
        "measure": 1,
        "probe": 1,
        "finetune": 1,
        "correlate": 1,
        "plots": 1,
    },
}
"""Study → rule → number of jobs in an empty folder, as products of what the study lists."""


OTHER_CELL = "results/smoke/loss_landscape/vit_smoke/digits_c_contrast_5/ln1/seed=1.parquet"


def study_file(name):
    return ROOT / name if name == "config.yaml" else ROOT / "workflow" / "studies" / name


def test_every_study_is_in_the_table():
    assert {path.name for path in (ROOT / "workflow" / "studies").iterdir()} | {"config.yaml"} == STUDIES.keys()


@pytest.mark.parametrize("name", STUDIES)
def test_jobs_of_a_study(name, tmp_path):
    for folder in ("images/a", "images/b", "photographs"):  # the reader's own, which one study names
        (tmp_path / "study" / folder).mkdir(parents=True)
    jobs = plan(tmp_path / "study", study_file(name))
    assert collections.Counter(job.rule for job in jobs) == STUDIES[name]
    assert len(set(jobs)) == len(jobs)


def test_optional_figures_are_made_when_they_are_asked_for(tmp_path):
    """Probes of every model and dataset; the landscape of the components, for the first model, dataset and seed."""
    jobs = plan(tmp_path / "study", SMOKE, targets=["probes_by_block", "loss_landscape"])
    cells = {"fetch_dataset": 3, "pretrain": 1, "finetune": 2 * 2 * 2}
    figures = {"taps": 2, "landscape": 2, "probes_by_block": 1, "loss_landscape": 1}
    assert collections.Counter(job.rule for job in jobs) == cells | figures
    trained_again = {job.wildcards for job in jobs if job.rule == "landscape"}
    assert trained_again == {f"vit_smoke/digits/{component}/0" for component in ("mha", "ln1")}
    (one,) = (job for job in plan(tmp_path / "one", SMOKE, targets=[OTHER_CELL]) if job.rule == "landscape")
    assert one.wildcards == "vit_smoke/digits_c_contrast_5/ln1/1"


def test_parsing_imports_nothing_heavy(tmp_path):
    """Each cluster job parses the workflow again."""
    program = (
        "import sys\n"
        "from snakemake.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('imported:', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    arguments = command(tmp_path, "--dry-run", config=SMOKE)[1:]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.rpartition("imported:")[2].split())
    assert {"vit_plasticity", "snakemake"} <= imported
    # Snakemake itself imports NumPy, pandas, pyarrow and PIL.
    assert not imported & {"torch", "torchvision", "timm", "sklearn", "scipy", "matplotlib", "seaborn", "safetensors"}


def test_dry_run_beside_the_snakefile_needs_no_options(tmp_path):
    """`snakemake -n` in a clone, as the first screen of the README says, plans the default study."""
    done = subprocess.run([SNAKEMAKE, "-n", "--directory", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^finetune +42$", done.stdout, re.MULTILINE)
