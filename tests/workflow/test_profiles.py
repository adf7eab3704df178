"""The profiles, as far as no cluster and no GPU is needed to see them."""

import os
import re

import pytest
from processes import ROOT, smoke_config, snakemake


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Rule → (what its jobs run, their resources), of every rule of the smoke study on a machine with two GPUs."""
    config = smoke_config(components=["mha", "ln1", "auto:random:1"])
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0,1"}
    options = ("--dry-run", "--printshellcmds", "--profile", str(ROOT / "profiles/local-gpu"), "--cores", "4")
    options += ("all", "probes_by_block", "loss_landscape")
    said = snakemake(tmp_path_factory.mktemp("planned"), *options, config=config, env=environment).stdout
    blocks = re.split(r"^(?:local)?rule (\w+):$", said, flags=re.MULTILINE)[1:]
    return dict(zip(blocks[::2], blocks[1::2], strict=True))


def test_every_rule_that_may_compute_on_a_gpu_takes_one(planned):
    # Stages that import torch run in the warm worker; each asks for the first GPU.
    computes = {rule: "vit_plasticity.warm" in block for rule, block in planned.items()}
    assert any(computes.values())
    assert {rule: bool(re.search(r"\bgpu=1\b", block)) for rule, block in planned.items()} == computes


def test_all_work_of_a_study_is_planned(planned):
    assert {
        "finetune",
        "plasticity",
        "probe",
        "evaluate",
        "pretrain",
        "correlate",
        "plots",
        "taps",
        "landscape",
    } <= planned.keys()
