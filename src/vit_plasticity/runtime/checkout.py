"""The environment in which Snakemake's jobs find this checkout of the package. Standard library only."""

import importlib.util
import os
import site
import sys
from pathlib import Path


def use(base):
    """Let the jobs of this Snakemake run the package of the checkout `base` with the Python that runs Snakemake.

    The user's PYTHONPATH comes after the checkout. Jobs read and name files as UTF-8 in every locale. An activated
    conda environment still puts its own Python first; packages of the user's site are not found in it.
    """
    source = str(Path(base, "src"))
    others = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry not in ("", source)]
    programs = [str(Path(sys.executable).parent), str(Path(base, "workflow/bin"))]  # the second: see runtime.sbatch
    path = [entry for entry in os.environ["PATH"].split(os.pathsep) if entry not in programs]
    os.environ["PATH"] = os.pathsep.join([*programs, *path])
    os.environ["PYTHONPATH"] = os.pathsep.join([source, *others])
    os.environ["PYTHONUTF8"] = "1"
    if not _in_user_site("snakemake"):
        os.environ["PYTHONNOUSERSITE"] = "1"


def _in_user_site(package):
    """Whether a package was found in the user's site, such as after ``pip install --user``."""
    spec = importlib.util.find_spec(package)
    return bool(spec and spec.origin) and Path(spec.origin).is_relative_to(site.getusersitepackages())
