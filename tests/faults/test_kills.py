"""A study whose cells and Snakemake are killed a dozen times ends with the tables of one that was left alone."""

import sys

import pytest
from kills import INT, KILL, TERM, Harness, Strike, Study

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
