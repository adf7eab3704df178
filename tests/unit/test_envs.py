"""The environments: the lock is pinned and names no registry; what `--sdm conda` installs suffices for its rules."""

import ast
import itertools
import os
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from processes import ROOT, snakemake

LOCK = ROOT / "envs" / "requirements.lock"
SOURCE = ROOT / "src" / "vit_plasticity"
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
RULE = re.compile(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


def locked():
    """The entries of the lock: (Requirement, its hashes)."""
    entries = re.split(r"^(?=\S)", LOCK.read_text(), flags=re.MULTILINE)[1:]
    parts = [re.split(r"\s*\\\n\s*--hash=", entry.strip()) for entry in entries]
    return [(Requirement(requirement), hashes) for requirement, *hashes in parts]


def pins(path):
    """An environment file: (its version of Python, package → version that pip installs)."""
    python, _, last = yaml.safe_load(path.read_text())["dependencies"]
    listed = [Requirement(line) for line in last["pip"]]
    assert all(re.fullmatch(r"==[^*]+", str(requirement.specifier)) for requirement in listed), "pin with =="
    return python.removeprefix("python ="), {canonicalize_name(r.name): str(r.specifier)[2:] for r in listed}


def rules():
    """Rule → (the environment that it names, the stage that it runs)."""
    found = {}
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for name, body in RULE.findall(path.read_text()):
            (environment,) = re.findall(r'conda:\n\s*"\.\./\.\./envs/(\S+)"', body)
            (stage,) = re.findall(r"python -m vit_plasticity\.(?:warm )?(\w+)", body)
            found[name] = environment, stage
    return found


REGISTRIES = {"data.formats"}
"""Folders whose files are found by their names, so that nothing imports them in words."""
NAMES_ALONE = {"vit.components": {"vit.selection"}}
"""Module → what it imports only once it is given a model, which stages without torch never do."""


def _file(module):
    return (SOURCE / module.replace(".", "/")).with_suffix(".py")


def imported(module, seen):
    """The modules that a module of the package imports, anywhere in it and in those of the package that it imports."""
    if module in seen:
        return set()
    seen.add(module)
    names = set()
    folder = SOURCE / module.replace(".", "/")
    path = folder / "__init__.py" if folder.is_dir() else _file(module)
    if module in REGISTRIES:
        names |= {f"vit_plasticity.{module}.{file.stem}" for file in folder.glob("[!_]*.py")}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    own = {name.removeprefix("vit_plasticity.") for name in names if name.startswith("vit_plasticity.")}
    own = {
        name
        for name in own - NAMES_ALONE.get(module, set())
        if (SOURCE / name.replace(".", "/")).is_dir() or _file(name).exists()
    }
    return names.union(*(imported(name, seen) for name in sorted(own)))


def packages(stages):
    """The packages from outside the standard library that stages import."""
    seen = set()
    tops = {name.split(".")[0] for stage in stages for name in imported(stage, seen)}
    owners = packages_distributions()
    outside = tops - set(sys.stdlib_module_names) - {"vit_plasticity", "__future__"}
    return {canonicalize_name(owners[top][0]) for top in outside}


def test_the_lock_pins_every_package_with_hashes_and_names_no_registry():
    entries = locked()
    assert len(entries) > 50
    for requirement, hashes in entries:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), requirement
    assert "://" not in LOCK.read_text() and "--index" not in LOCK.read_text()


def test_the_lock_holds_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    versions = {}
    for requirement, _ in locked():
        versions.setdefault(canonicalize_name(requirement.name), []).append(str(requirement.specifier)[2:])
    for line in map(Requirement, wanted):
        found = versions.get(canonicalize_name(line.name), [])
        assert found and all(line.specifier.contains(version) for version in found), line


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_the_pins_of_an_environment_are_those_of_the_lock(path):
    python, listed = pins(path)
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    versions = {
        canonicalize_name(requirement.name): str(requirement.specifier)[2:]
        for requirement, _ in locked()
        if requirement.marker is None or requirement.marker.evaluate(here)
    }
    assert listed == {name: versions[name] for name in listed}
    assert list(listed) == sorted(listed)


def test_every_rule_names_an_environment_and_a_stage():
    found = rules()
    assert {"fetch_dataset", "fetch_model", "pretrain", "finetune", "correlate", "plots"} <= set(found)
    assert {environment for environment, _ in found.values()} == {path.name for path in ENVIRONMENTS}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_an_environment_lists_what_the_stages_of_its_rules_import(path):
    stages = {stage for environment, stage in rules().values() if environment == path.name}
    assert set(pins(path)[1]) == packages(stages)


CONDA = """#!{python}
import json, pathlib, sys
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("conda 25.1.0")
elif arguments[0] == "info":
    print(json.dumps({{"conda_prefix": "{prefix}", "platform": "linux-64"}}))
elif arguments[0] == "config":
    print(json.dumps({{"get": {{"channel_priority": "strict"}}}}))
elif arguments[:2] == ["env", "create"]:
    python = pathlib.Path(arguments[arguments.index("--prefix") + 1], "bin", "python")
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\\necho "this is the environment"\\nexec {python} "$@"\\n')
    python.chmod(0o755)
"""
"""What Snakemake asks of conda; an environment is a Python that says so and hands over to that of the tests."""


def test_a_job_in_a_conda_environment_finds_the_package(tmp_path):
    conda = tmp_path / "conda" / "bin" / "conda"
    conda.parent.mkdir(parents=True)
    conda.write_text(CONDA.format(python=sys.executable, prefix=tmp_path / "conda"))
    conda.chmod(0o755)
    (conda.parent / "activate").write_text('export PATH="$1/bin:$PATH"\n')
    environment = os.environ | {"PATH": f"{conda.parent}:{os.environ['PATH']}"}
    done = snakemake(tmp_path, "resources/datasets/fractals_smoke", "--sdm", "conda", env=environment)
    log = (tmp_path / "logs/fetch/datasets/fractals_smoke.log").read_text()
    assert log == "this is the environment\n", done.stdout


def test_pyproject_declares_every_package_that_the_source_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    modules = {".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    modules = {module.removesuffix(".__init__") for module in modules} - {"__init__"}
    assert packages(modules) - declared == set()
