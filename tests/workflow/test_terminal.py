"""What a user sees of a run: a few live lines on a terminal, and what failed in the words of the stage."""

import os
import pty
import re
import subprocess
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from processes import SMOKE, command, snakemake, write_config

from snakemake_logger_plugin_vit_plasticity import view

ENDED_WELL = "resources/models/vit_smoke"


def on_a_terminal(folder, *arguments, **options):
    """Run Snakemake on a terminal of 100 columns: (exit status, all that it wrote there)."""
    ours, its = pty.openpty()
    environment = os.environ | {"COLUMNS": "100", "TERM": "xterm"}
    words = command(folder, *arguments, **options)
    process = subprocess.Popen(words, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    written = b""
    with suppress(OSError):  # the last process has closed the terminal
        while piece := os.read(ours, 65536):
            written += piece
    os.close(ours)
    return process.wait(), written.decode()


def screen(written):
    """The lines that a terminal shows of what was written, as far as lines go up, are erased, or are broken."""
    lines, row = [""], 0
    for piece in re.split(r"(\x1b\[\d*[FJm]|\r?\n)", written):
        if piece.endswith("\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif up := re.fullmatch(r"\x1b\[(\d+)F", piece):
            row -= int(up[1])
            assert row >= 0
        elif piece == "\x1b[J":
            del lines[row:]
            lines.append("")
        elif not piece.startswith("\x1b"):
            lines[row] += piece
    return lines


def images(folder, size=12):
    """Images of two classes in class folders, with a file that is none."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            pixels = random.integers(256, size=(size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    (folder / "cat" / ".hidden").write_text("a file that is no image")
    (folder / "dog" / "readme.txt").write_text("another")
    return folder


@pytest.fixture
def noted(tmp_path):
    """A study of which there are two things to know: small images, and files that are left out."""
    mine = {"imagefolder": str(images(tmp_path / "mine")), "short_side": 8}
    over = {"datasets": ["mine"], "evaluate_on": [], "catalog": {"datasets": {"mine": mine}}}
    return [SMOKE, write_config(tmp_path / "mine.yaml", over)]


ABOUT_SIZE = "note: vit_smoke takes images of 32 pixels, but those of mine are stored with a shorter side of at most 8"
ABOUT_FILES = "note: dataset mine: left out of"


def test_notes_are_seen_in_a_dry_run(noted, tmp_path):
    status, written = on_a_terminal(tmp_path / "work", "-n", config=noted)
    assert status == 0, written
    assert sum(ABOUT_SIZE in line for line in screen(written)) == 1


def test_notes_of_the_study_and_of_its_jobs_stay_on_the_terminal(noted, tmp_path):
    """A job writes them while the live lines are there, which must not be erased with them."""
    targets = ("resources/datasets/mine", "resources/datasets/digits")
    status, written = on_a_terminal(tmp_path / "work", *targets, config=noted)
    assert status == 0, written
    shown = screen(written)
    assert [sum(words in line for line in shown) for words in (ABOUT_SIZE, ABOUT_FILES)] == [1, 1], shown
    assert not any("jobs done after" in line for line in shown), shown


def test_an_error_before_any_job_is_seen_and_ends_the_run(tmp_path):
    status, written = on_a_terminal(tmp_path, "--config", "zzz=1")
    assert status == 1
    assert sum("zzz: unknown key" in line for line in screen(written)) == 1


def test_a_terminal_shows_a_few_live_lines_and_no_talk_of_the_scheduler(tmp_path):
    status, written = on_a_terminal(tmp_path, ENDED_WELL)
    assert status == 0, written
    assert re.search(r"\d of \d jobs done after ", written)
    assert "  pretrain vit_smoke: " in written
    assert "Select jobs" not in written and "Finished jobid" not in written
    left = written.rpartition("\x1b[J")[2]
    assert "pretrain" not in left  # the lines are taken away at the end


@pytest.mark.parametrize("flag", ["--logger-vit-plasticity-full", "--printshellcmds"])
def test_a_flag_brings_snakemakes_own_log_back(tmp_path, flag):
    status, written = on_a_terminal(tmp_path, flag, "resources/datasets/digits")
    assert status == 0, written
    assert "Finished jobid" in written and "jobs done after" not in written


def test_a_dry_run_on_a_terminal_is_snakemakes_own(tmp_path):
    _, written = on_a_terminal(tmp_path, "-n")
    assert "Job stats" in written and "finetune" in written


def test_off_a_terminal_only_the_end_of_an_error_is_said(tmp_path):
    (tmp_path / "broken").mkdir()
    catalog = {"catalog": {"datasets": {"broken": {"imagefolder": str(tmp_path / "broken")}}}}
    study = [SMOKE, write_config(tmp_path / "broken.yaml", catalog)]
    arguments = ("resources/datasets/broken", "--logger", "vit-plasticity")
    done = snakemake(tmp_path / "study", *arguments, config=study, check=False)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert re.search(r"^fetch_dataset broken failed: vit_plasticity.fetch: error: ", done.stdout, re.MULTILINE)
    assert "log: logs/fetch/datasets/broken.log" in done.stdout
    assert len(done.stdout.splitlines()) < 12, done.stdout


def record(jobid, rule, log, **wildcards):
    return {"jobid": jobid, "rule_name": rule, "wildcards": wildcards, "log": [str(log)]}


def test_time_left_by_hand(tmp_path):
    study, log = view.Study(), tmp_path / "log"
    study.plan({"fetch": 1, "finetune": 5, "total": 6})
    study.start(record(1, "fetch", log), 0)
    assert study.seconds_left(1) is None  # nothing is known of what takes longest
    study.finish(1, 10)
    study.start(record(2, "finetune", log, dataset="digits", seed="0"), 10)
    log.write_text("lr 0.1: step 5/20 loss 0.5 val_accuracy 0.1\n")
    # A quarter done in 10 s: 40 s a cell, five of them one after the other, less the 10 s.
    assert study.seconds_left(20) == pytest.approx(5 * 40 - 10)
    study.start(record(3, "finetune", log, dataset="digits", seed="1"), 20)
    assert study.seconds_left(20) == pytest.approx((5 * 40 - 10) / 2, rel=0.5)
    assert study.lines(20)[1] == "  finetune digits seed=0: step 5 of 20, loss 0.5"


def test_more_jobs_than_lines_are_counted(tmp_path):
    study = view.Study()
    study.plan({"finetune": 20, "total": 20})
    for i in range(12):
        study.start(record(i, "finetune", tmp_path / "none", seed=str(i)), 0)
    assert len(study.lines(1)) == view.MOST_JOBS + 2
    assert study.lines(1)[-1] == "  and 4 more"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_durations_in_words(seconds, text):
    assert view.duration(seconds) == text


def test_a_job_that_left_no_word_is_told_with_its_log(tmp_path):
    assert "no word" in view.said_by_stage([str(tmp_path / "none")])
