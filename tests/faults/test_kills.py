"""A study whose cells and Snakemake are killed a dozen times ends with the tables of one that was left alone."""

import os
import signal
import subprocess
import sys

import pytest
from kills import INT, KILL, TERM, Harness, Strike, Study, jobs_of
from one_cell import wait_for
from processes import command, differences, remove, snakemake

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

STRIKES = [
    Strike("job", "checkpoint", KILL),
    Strike("client", "any", KILL),
    Strike("job", "any", TERM),
    Strike("snakemake", "any", KILL),
    Strike("job", "checkpoint", KILL),
    Strike("client", "checkpoint", INT),
    Strike("job", "final", KILL),
    Strike("snakemake", "any", TERM),
    Strike("client", "any", TERM),
    Strike("job", "final", KILL),
    Strike("group", "any", INT),
    Strike("client", "final", KILL),
]


@pytest.mark.time_limit(900)
def test_a_dozen_kills_lose_nothing(smoke, tmp_path):
    reference, study = Study(tmp_path / "reference", smoke), Study(tmp_path / "study", smoke)
    reference.undisturbed()
    tally = Harness(study, reference.work, STRIKES).run()
    print(tally)
    assert tally.kills == len(STRIKES)
    assert tally.during_checkpoint > 0
    assert tally.during_final > 0
    assert tally.resumed > 0
    assert (tally.lost, tally.retrained, tally.different) == ([], [], [])


def test_cell_that_ends_unseen_is_not_trained_again(study, smoke):
    """Interrupted alone, Snakemake lets its job end but does not count it; the next one removes its files, and its runs
    serve again."""
    cell = "finetune/vit_smoke/digits/mha/seed=0"
    target = f"results/smoke/{cell}/runs.parquet"
    remove((study / target).parent)
    with subprocess.Popen(command(study, target), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        wait_for(lambda: first.poll() is not None or jobs_of(study / "results" / "smoke"))
        (job,) = jobs_of(study / "results" / "smoke")
        assert job.freeze()
        first.send_signal(signal.SIGINT)
        assert any(line.startswith("Terminating processes on user request") for line in first.stdout)
        os.kill(job.pid, signal.SIGCONT)
        first.communicate(timeout=120)
    assert first.returncode != 0
    snakemake(study, target)
    assert not differences(study, smoke)
    said = (study / "logs" / "smoke" / f"{cell}.log").read_text()
    assert "complete:" in said
    assert said.count("outcome=") == 0
