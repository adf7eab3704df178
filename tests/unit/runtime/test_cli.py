"""What all command lines share."""

import os

from vit_plasticity.runtime import cli


def test_cpus_are_those_that_this_process_may_use(monkeypatch):
    assert cli.available_cpus() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS has none
    assert cli.available_cpus() == os.cpu_count()
