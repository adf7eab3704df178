"""What Snakemake's jobs get as their environment."""

import os
import site
import sys
from pathlib import Path
from unittest import mock

import pytest

from vit_plasticity.runtime import checkout


@pytest.fixture(autouse=True)
def environment():
    with mock.patch.dict(os.environ):
        yield os.environ


@pytest.mark.parametrize(("before", "after"), [(None, []), ("", []), ("/mine:/other", ["/mine", "/other"])])
def test_the_users_pythonpath_comes_after_the_checkout(environment, before, after):
    environment.pop("PYTHONPATH", None)
    if before is not None:
        environment["PYTHONPATH"] = before
    for _ in range(2):  # Snakemake starts again in a job
        checkout.use("/vit")
        assert environment["PYTHONPATH"].split(os.pathsep) == ["/vit/src", *after]


def test_the_python_that_runs_snakemake_runs_its_jobs_in_utf_8(environment):
    checkout.use("/vit")
    assert Path(environment["PATH"].split(os.pathsep)[0]) == Path(sys.executable).parent
    assert environment["PYTHONUTF8"] == "1"


@pytest.mark.parametrize("there", [True, False])
def test_the_users_site_is_left_out_unless_snakemake_is_installed_there(environment, monkeypatch, tmp_path, there):
    package = tmp_path / "snakemake"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path if there else tmp_path / "user"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "snakemake", raising=False)
    environment.pop("PYTHONNOUSERSITE", None)
    checkout.use("/vit")
    assert ("PYTHONNOUSERSITE" in environment) is not there
