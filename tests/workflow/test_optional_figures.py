"""The figures that are made when they are asked for by name, made for real from the finished smoke study."""

import collections
import re

import pyarrow.parquet as pq
from planning import plan
from processes import copy_checkout, jobs_run, smoke_config, snakemake

BOTH = ("probes_by_block", "loss_landscape")
CONFIG = {"landscape__grid_points": 5, "landscape__images": 16, "landscape__path_points": 4}


def test_they_are_made_from_the_finished_study_and_depend_on_what_they_read(study, tmp_path):
    config = smoke_config(**CONFIG)
    done = snakemake(study, *BOTH, config=config)
    assert jobs_run(done.stdout) == {"landscape": 2, "loss_landscape": 1, "probes_by_block": 1, "taps": 2}
    results = study / "results" / "smoke"
    for name in BOTH:
        assert (results / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")

    probed = pq.read_table(results / "probes_by_block" / "vit_smoke" / "digits.parquet").to_pandas()
    (last,) = probed.query("tap == 'ffn' and block == 1 and component.isna()").to_dict("records")
    (known,) = pq.read_table(results / "probe" / "vit_smoke" / "digits.parquet").to_pylist()
    assert (last["accuracy"], last["n_iter"]) == (known["accuracy"], known["n_iter"])
    for file in results.glob("loss_landscape/*/*/*/*.parquet"):  # trained by another rule, in another process
        assert set(pq.read_table(file, partitioning=None)["end_error"].to_pylist()) == {0}

    def rerun(**changes):
        return collections.Counter(job.rule for job in plan(study, smoke_config(**CONFIG | changes), targets=BOTH))

    assert rerun() == {}
    assert rerun(landscape__images=8) == {"landscape": 2, "loss_landscape": 1}
    assert rerun(probe__max_iter=9) == {"taps": 2, "probes_by_block": 1}
    assert plan(study, config) == []  # the study itself is as finished as before

    checkout = copy_checkout(tmp_path / "checkout")
    rules = checkout / "workflow" / "rules" / "optional.smk"
    rules.write_text(re.sub(r"rev=\d+,", "rev=1000,", rules.read_text()))
    again = {job.rule for job in plan(study, config, checkout=checkout, targets=BOTH)}
    assert again == {"landscape", "taps", *BOTH}
