"""A full or read-only disk: a clear error, nothing half-written, what was there intact, and the next run completes."""

import json
import os
import shutil
import signal
import subprocess

import pytest
from kills import jobs_of
from one_cell import Cell, wait_for
from processes import differences, smoke_config, snakemake, stable, stage, temporary_files


def fill(disk, leave):
    """A file that takes all of a small disk but `leave` bytes."""
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
    return filler


def remount(disk, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def assert_clear(done, words):
    assert done.returncode == 1, done.stdout
    assert words in done.stdout
    assert "run the same command again" in done.stdout
    assert "Traceback" not in done.stdout


PAGE = 4096


@pytest.mark.parametrize("fit", [0, 1, 2], ids=["nothing fits", "one file fits", "two files fit"])
def test_no_room_for_the_files_of_a_cell(smoke, warm_worker, undisturbed, small_disk, tmp_path, fit):
    """The disk is full after none, one or two of the three files, of which runs.parquet comes last."""
    whole = Cell(tmp_path / "whole", smoke)
    whole.run()
    order = ["history.parquet", "trained.safetensors", "runs.parquet"]
    pages = [-(-whole.output.with_name(name).stat().st_size // PAGE) for name in order]
    assert min(pages) > 1

    cell = Cell(tmp_path / "full", smoke, output=small_disk / "cell" / "runs.parquet")
    (tmp_path / "work").mkdir()
    cell.work.parent.mkdir()
    cell.work.symlink_to(tmp_path / "work")
    filler = fill(small_disk, (sum(pages[:fit]) + 1) * PAGE)
    assert_clear(cell.run(check=False), "No space left on device")
    assert not temporary_files(small_disk)
    assert {file.name for file in cell.output.parent.iterdir()} == {"runs", *order[:fit]}
    for name in order[:fit]:
        one, other = (c.output.with_name(name) for c in (cell, whole))
        assert stable(one) == stable(other) if name.endswith(".parquet") else one.read_bytes() == other.read_bytes()
    filler.unlink()
    assert "outcome" not in cell.run().stdout  # nothing is trained again
    assert cell.numbers() == undisturbed


def test_no_room_for_a_checkpoint(smoke, warm_worker, undisturbed, small_disk, tmp_path):
    """The disk fills up in the middle of training: the checkpoint that there was is still there."""
    cell = Cell(tmp_path / "cell", smoke, output=small_disk / "cell" / "runs.parquet")
    process = cell.start()
    wait_for(lambda: process.poll() is not None or any(cell.work.glob("*.checkpoint")))
    (job,) = jobs_of(cell.output.parent)
    assert job.freeze()
    fill(small_disk, 0)
    os.kill(job.pid, signal.SIGCONT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert not temporary_files(small_disk)
    remount(small_disk, "size=8m")
    assert "going on from step" in cell.run().stdout
    assert cell.numbers() == undisturbed


def test_study_on_a_full_disk_goes_on_when_there_is_room(study, smoke, small_disk):
    finetune = study / "results" / "smoke" / "finetune"
    shutil.rmtree(finetune)
    finetune.symlink_to(small_disk)
    fill(small_disk, 250_000)
    done = snakemake(study, check=False)
    assert done.returncode == 1
    logs = [log.read_text() for log in (study / "logs" / "smoke" / "finetune").rglob("*.log")]
    full = [log for log in logs if "No space left on device" in log]
    assert 0 < len(full) < len(logs) == 8
    assert not any("Traceback" in log for log in logs)
    assert not temporary_files(small_disk)
    for table in small_disk.rglob("*.parquet"):
        assert stable(table) == stable(smoke / "results" / "smoke" / "finetune" / table.relative_to(small_disk))
    remount(small_disk, "size=8m")
    snakemake(study)
    assert not differences(study, smoke)


def test_read_only_outputs_of_a_cell(smoke, warm_worker, undisturbed, small_disk, tmp_path):
    cell = Cell(tmp_path / "cell", smoke, output=small_disk / "cell" / "runs.parquet")
    cell.output.parent.mkdir()
    remount(small_disk, "ro")
    assert_clear(cell.run(check=False), "Read-only file system")
    assert not [*cell.output.parent.iterdir()]
    remount(small_disk, "rw,size=8m")
    cell.run()
    assert cell.numbers() == undisturbed


def test_study_whose_results_are_read_only(study, smoke, small_disk):
    """A missing cell cannot be made: Snakemake says why, and what is there stays."""
    finetune = study / "results" / "smoke" / "finetune"
    remount(small_disk, "size=8m")
    shutil.copytree(finetune, small_disk, dirs_exist_ok=True)
    shutil.rmtree(finetune)
    finetune.symlink_to(small_disk)
    cell = "results/smoke/finetune/vit_smoke/digits/mha/seed=0/runs.parquet"
    shutil.rmtree((study / cell).parent)
    remount(small_disk, "ro")
    done = snakemake(study, cell, check=False)
    assert done.returncode != 0
    assert "Read-only file system" in done.stdout
    assert len([*small_disk.rglob("runs.parquet")]) == 7
    remount(small_disk, "rw")
    snakemake(study, cell)
    assert not differences(study, smoke)


def test_small_model_on_a_full_disk(smoke, warm_worker, small_disk, tmp_path):
    """Pre-training: the model folder appears whole or not at all."""
    config = smoke_config()["pretrain"] | {"steps": 1, "warmup_steps": 0}
    fill(small_disk, 4096)
    dataset = smoke / "resources" / "datasets" / "fractals_smoke"
    arguments = ["--dataset", dataset, "--params", json.dumps(config), "--output", small_disk / "model"]
    done = stage("pretrain", *arguments, cwd=tmp_path, check=False)
    assert_clear(done, "No space left on device")
    assert not (small_disk / "model").exists()
