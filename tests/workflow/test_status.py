"""`python -m vit_plasticity.status`: the state of each cell, read from its files, and commands that may be pasted."""

import shlex
import signal
import subprocess
import sys

import pytest
from planning import plan
from processes import SMOKE, remove, smoke_config, write_config

from vit_plasticity import status
from vit_plasticity.runtime import cli, locks

MHA, LN1 = "vit_smoke/digits/mha/seed=0", "vit_smoke/digits/ln1/seed=1"


@pytest.fixture
def tell(capsys):
    """A function that runs status on the study in a folder and returns what it prints, line by line."""

    def tell(folder, *options, configfile=SMOKE):
        assert cli.run(status.main, ["--directory", str(folder), "--configfile", str(configfile), *options]) == 0
        return capsys.readouterr().out.splitlines()

    return tell


def test_finished_study(smoke, tell):
    lines = tell(smoke)
    assert [line.split()[0] for line in lines[:8]] == ["done"] * 8
    assert lines[-1] == "smoke: 8 cells, 8 done, 0 diverged, 0 failed, 0 missing"


def test_reader_may_leave(tmp_path):
    """As `head` does."""
    command = [sys.executable, "-m", "vit_plasticity.status", "--directory", str(tmp_path), "--configfile", str(SMOKE)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 128 + signal.SIGPIPE


def test_watching_tells_what_changes_and_ends_when_all_is_done(study):
    cell = study / "results" / "smoke" / "finetune" / "vit_smoke" / "digits" / "mha" / "seed=0"
    hidden = cell.rename(cell.with_name("hidden"))
    command = [sys.executable, "-m", "vit_plasticity.status", "--directory", str(study), "--configfile", str(SMOKE)]
    process = subprocess.Popen([*command, "--watch"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("smoke: 8 cells, 7 done")
    hidden.rename(cell)
    rest = process.stdout.readlines()
    assert (rest, process.wait(60)) == (["smoke: 8 cells, 8 done, 0 diverged, 0 failed, 0 missing\n"], 0)


def test_nothing_has_run(tmp_path, tell):
    lines = tell(tmp_path)
    assert [line.split()[0] for line in lines[:8]] == ["missing"] * 8
    assert lines[-2] == "smoke: 8 cells, 0 done, 0 diverged, 0 failed, 8 missing"
    assert not [*tmp_path.iterdir()]


def test_failed_and_missing_cells(study, tell):
    for cell in (MHA, LN1):
        remove(study / "results" / "smoke" / "finetune" / cell / "trained.safetensors")
    logs = study / "logs" / "smoke" / "finetune"
    (logs / f"{MHA}.log").write_text("lr=0.03 outcome=finished\nvit_plasticity.finetune: error: what it was\n\n")
    remove(logs / f"{LN1}.log")
    lines = tell(study)
    assert f"failed   {MHA}  vit_plasticity.finetune: error: what it was" in lines
    assert f"missing  {LN1}" in lines
    assert "smoke: 8 cells, 6 done, 0 diverged, 1 failed, 1 missing" in lines
    assert tell(study, "--state", "failed")[0].startswith(f"failed   {MHA}")
    assert tell(study, "--state", "missing")[0].startswith(f"missing  {LN1}")


def test_removed_and_running_and_unreadable_cells(study, tell):
    finetune = study / "results" / "smoke" / "finetune"
    remove(finetune / MHA)
    (finetune / LN1 / "runs.parquet").write_bytes(b"PAR1")
    (study / "logs" / "smoke" / "finetune" / "vit_smoke" / "digits" / "mha" / "seed=1.log").write_text("")
    remove(finetune / "vit_smoke" / "digits" / "mha" / "seed=1")
    lines = tell(study)
    assert f"missing  {MHA}  it was complete once; its files were removed" in lines
    assert f"failed   {MHA[:-1]}1  its log is empty: it was stopped, or waits" in lines
    assert any(line.startswith(f"failed   {LN1}  runs.parquet cannot be read, delete it") for line in lines)


def test_a_cell_is_running_while_a_process_holds_its_lock(study, tell):
    lock = study / "results" / "smoke" / "finetune" / MHA / "runs.lock"
    with locks.hold(lock, "owns it"):
        lines = tell(study)
        assert f"running  {MHA}" in lines
        assert "smoke: 8 cells, 7 done, 0 diverged, 1 running, 0 failed, 0 missing" in lines
    lock.write_text("left over")
    assert f"done     {MHA}" in tell(study)


def test_cells_made_with_other_settings_are_stale(smoke, tell, tmp_path):
    overrides = {"digits": {"finetune": {"lrs": [0.03, 0.2]}}}
    other = write_config(tmp_path / "other.yaml", smoke_config(overrides=overrides))
    lines = tell(smoke, configfile=other)
    assert f"stale    {MHA}  made with lrs [0.03, 0.1], not [0.03, 0.2]" in lines
    assert "smoke: 8 cells, 4 done, 0 diverged, 4 stale, 0 failed, 0 missing" in lines
    assert any(line.startswith("run what is not done:") for line in lines)


def test_printed_commands_run_what_they_say(study, tell, tmp_path):
    """The first runs all that is not done, the second one failed cell alone; in a folder that needs quoting."""
    folder = study.rename(tmp_path / "a study's $folder")
    remove(folder / "results" / "smoke" / "finetune" / MHA)
    (folder / "logs" / "smoke" / "finetune" / f"{MHA}.log").write_text("error")
    *_, whole, alone = tell(folder)
    whole, alone = (shlex.split(line.partition(": ")[2].strip()) for line in (whole, alone))
    for words in (whole, alone):
        assert words[:5] == ["snakemake", "--cores", "all", "--keep-going", "--rerun-incomplete"]
        assert words[words.index("--directory") + 1] == str(folder)
        assert words[-2:] == ["--configfile", str(SMOKE)]
    assert f"results/smoke/finetune/{MHA}/runs.parquet" in alone
    assert {job.rule for job in plan(folder)} == {"finetune", "evaluate", "correlate", "plots"}


def test_another_study_is_another_folder(smoke, tell, tmp_path):
    other = write_config(tmp_path / "other.yaml", smoke_config(study="other", seeds=[0, 1, 2]))
    assert "other: 12 cells, 0 done, 0 diverged, 0 failed, 12 missing" in tell(smoke, configfile=other)


def test_wrong_study_is_refused(tmp_path, capsys):
    wrong = write_config(tmp_path / "wrong.yaml", smoke_config(finetune__step=3))
    assert cli.run(status.main, ["--configfile", str(wrong)]) == 2
    assert "finetune.step: unknown key; did you mean steps?" in capsys.readouterr().err
    assert cli.run(status.main, ["--configfile", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml cannot be read" in capsys.readouterr().err
