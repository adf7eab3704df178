"""Running the workflow and its stages as users do, and comparing what they leave: helpers of the tests of both."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "workflow" / "studies" / "smoke.yaml"
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
UNSTABLE = ("duration_s", "step_duration_s", "peak_memory_mb", "git_commit", "device")
"""Columns that say how a number was made, which no two runs share."""


def command(directory, *arguments, config=SMOKE, checkout=ROOT):
    """The command line of Snakemake in the folder `directory`; config: a study's file, a list of files, or a dict."""
    if isinstance(config, dict):
        config = write_config(Path(directory, "config.yaml"), config)
    files = config if isinstance(config, (list, tuple)) else [config]
    return [
        *(str(SNAKEMAKE), "--cores", "2", "--directory", str(directory), "--snakefile", str(checkout / "Snakefile")),
        *map(str, arguments),
        *("--configfile", *map(str, files)),
    ]


def snakemake(directory, *arguments, check=True, timeout=300, env=None, **options):
    """Run Snakemake to its end; the finished process, whose `stdout` holds all output. `check`: it must succeed."""
    done = subprocess.run(
        command(directory, *arguments, **options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env=env,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def stage(name, *arguments, cwd, check=True, warm=True, **options):
    """Run ``python -m vit_plasticity.NAME …`` to its end, in the tests' warm worker where there is one; the finished
    process, whose `stdout` holds all output."""
    module = ["vit_plasticity.warm", name] if warm else [f"vit_plasticity.{name}"]
    done = subprocess.run(
        [sys.executable, "-m", *module, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        **options,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def jobs_run(output):
    """Rule → number of its jobs that a run of Snakemake finished, from what it printed."""
    finished = [line.rpartition("Rule: ")[2].rstrip(")") for line in output.splitlines() if "Finished jobid" in line]
    return {rule: finished.count(rule) for rule in sorted(set(finished)) if rule != "all"}


def smoke_config(**changes):
    """The smoke study as a dict; changes: dotted keys with ``__`` for the dot, such as ``finetune__steps=3``."""
    config = yaml.safe_load(SMOKE.read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = config
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    return config


def write_config(path, config):
    """Write a configuration as YAML and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def copy_study(source, target, *without):
    """Copy the working folder of a finished study, with Snakemake's records, less some paths below it."""
    shutil.copytree(source, target, symlinks=True, copy_function=shutil.copy2)
    for path in without:
        remove(target / path)
    return target


def copy_checkout(target):
    """A copy of what a run of the workflow needs, for tests that edit the workflow itself."""
    target.mkdir(parents=True)
    for name in ("workflow", "profiles", "envs", "src"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, target / name)
    return target


def remove(path):
    """Remove a file or a folder; one that is not there is an error."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def edit(path, old, new):
    """Replace text in a file; text that is not there is an error."""
    text = path.read_text()
    assert old in text, f"{path} does not hold {old!r}"
    path.write_text(text.replace(old, new))


def stable(path):
    """A table as (columns of values that must repeat, what its metadata says of its key)."""
    table = pq.read_table(path, partitioning=None)
    about = json.loads(table.schema.metadata[b"vit_plasticity"])
    columns = {name: table[name].to_pylist() for name in table.column_names if name not in UNSTABLE}
    # A NaN differs from itself; its text does not.
    return {name: list(map(repr, values)) for name, values in columns.items()}, about["key"], about["rev"]


TIMED = ("answer.html", "summary.html", "predictors.html")
"""Pages that tell how long things took; the tables that they show are compared without it."""


def differences(one, other, study="smoke"):
    """The result files by which two working folders differ, less durations, memory and provenance: a list of texts."""
    folders = [Path(folder, "results", study) for folder in (one, other)]
    names = [
        {
            str(Path(place, name).relative_to(folder))
            for place, _, files in os.walk(folder, followlinks=True)
            for name in files
        }
        for folder in folders
    ]
    names = [{name for name in some if name.endswith((".parquet", ".safetensors", ".html"))} for some in names]
    names = [{name for name in some if not name.endswith(TIMED)} for some in names]
    assert names[0], f"{folders[0]} holds no results"
    found = [f"{name} is only in one" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        a, b = (folder / name for folder in folders)
        same = stable(a) == stable(b) if name.endswith(".parquet") else a.read_bytes() == b.read_bytes()
        found += [] if same else [f"{name} differs"]
    return found


def temporary_files(folder):
    """Files below a folder that look half-written: those whose name starts with a dot, less locks."""
    return [p for p in Path(folder).rglob(".*") if p.is_file() and ".snakemake" not in p.parts and p.suffix != ".lock"]


def is_root():
    return os.geteuid() == 0
