"""One SLURM for all tests of this folder, installed where it is missing: a skip would hide that nothing was proved."""

import os
from pathlib import Path

import cluster
import pytest
from study import Study


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.time_limit(1200))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A running SlurmCluster."""
    if missing := cluster.missing_programs():
        if os.geteuid() != 0:
            pytest.skip(f"SLURM is not installed ({', '.join(missing)} missing), and only root can install it")
        cluster.install()
    with cluster.SlurmCluster(tmp_path_factory.mktemp("cluster") / "slurm") as running:
        yield running


@pytest.fixture(scope="session")
def reference(slurm, tmp_path_factory):
    """The study as it comes out on this machine without SLURM."""
    study = Study.checkout(tmp_path_factory.mktemp("reference") / "study", slurm)
    study.run("--cores", "2")
    return study
