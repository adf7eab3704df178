"""The workflow as it grows, with all predictors and finer components: dry runs, nothing to do, and the aggregation.

Beside it a bare workflow of as many jobs, files and logs: the same paths, the shortest of commands, no settings, no
checks. Both are "finished" by `pretend`. The aggregation stands beside reading the same files with pyarrow.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from unittest import mock

import synthetic_study
import yaml

from benchmarks import ROOT
from benchmarks.harness import at_most, ratios, stated
from vit_plasticity.study import config as studies
from vit_plasticity.study import grid

CELLS = (1_000, 10_000)
GRID = {
    "models": ["vit_mini"],
    "datasets": ["digits", "digits_c_contrast_5", "digits_c_gaussian_noise_5", "digits_c_motion_blur_5"],
    "components": ["mha", "fc1", "fc2", "ln2", "ln1", "qkv", "bias", "mha@0-1", "mha+fc1", "lora4:mha"],
}
AGGREGATED = {"models": ["a", "b"], "datasets": [f"d{i}" for i in range(20)], "components": GRID["components"][:5]}
BARE = """
wildcard_constraints:
    model="[^/]+", dataset="[^/]+", component="[^/]+", predictor="[^/]+", seed="[0-9]+",

rule all:
    input: {done!r}

rule correlate:
    input: open({files!r}).read().split()
    output: {done!r}
    log: "bare/logs/correlate.log"
    shell: "program {{input}} > {{output}} 2> {{log}}"

rule resource:
    output: "bare/resources/{{kind}}/{{name}}"
    log: "bare/logs/{{kind}}/{{name}}.log"
    shell: "program {{input}} > {{output}} 2> {{log}}"

rule finetune:
    input: "bare/resources/models/{{model}}", "bare/resources/datasets/{{dataset}}"
    output: {finetune!r}, {history!r}, {trained!r}
    log: "bare/logs/finetune/{{model}}/{{dataset}}/{{component}}/{{seed}}.log"
    shell: "program {{input}} > {{output}} 2> {{log}}"

rule probe:
    input: "bare/resources/models/{{model}}", "bare/resources/datasets/{{dataset}}"
    output: {probe!r}
    log: "bare/logs/probe/{{model}}/{{dataset}}.log"
    shell: "program {{input}} > {{output}} 2> {{log}}"

rule plasticity:
    input: "bare/resources/models/{{model}}", expand("bare/resources/datasets/{{name}}", name={datasets!r})
    output: expand({plasticity!r}, dataset={datasets!r}, allow_missing=True)
    log: "bare/logs/plasticity/{{model}}/{{component}}.log"
    shell: "program {{input}} > {{output}} 2> {{log}}"

rule measure:
    input: "bare/resources/models/{{model}}", "bare/resources/datasets/{{dataset}}"
    output: expand({measure!r}, predictor={predictors!r}, allow_missing=True)
    log: "bare/logs/measure/{{model}}/{{dataset}}.log"
    shell: "program {{input}} > {{output}} 2> {{log}}"
"""
READ_ALL = """
import pathlib, sys
import pyarrow.parquet
for file in pathlib.Path(sys.argv[1]).rglob("*.parquet"):
    pyarrow.parquet.read_table(file, partitioning=None)
"""


def measure():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        return [parsing(folder), *dry_runs(folder), *aggregation(folder)]


def parsing(folder, repetitions=3):
    """CPU seconds of parsing the workflow, above those of an empty one."""
    empty = folder / "empty.smk"
    empty.write_text("rule all:\n")
    above = []
    for _ in range(repetitions):
        ours, empty_one = (snakemake(folder, "--list-rules", file=file)[0] for file in (ROOT / "Snakefile", empty))
        above.append(ours - empty_one)
    return at_most("Parsing the workflow, above Snakemake's own, CPU time", 1, above, unit="s")


def dry_runs(folder):
    """Ours and the bare workflow in turn: CPU seconds of a dry run before anything is made, and after all is."""
    results, seconds, megabytes, counts = [], {}, {}, {}
    for cells in CELLS:
        both = {"ours": our_study(folder, cells), "bare": bare_study(folder, cells)}
        for state in ("dry run", "nothing to do"):
            for name in [*both] * (2 if cells == CELLS[-1] else 1):
                cpu, peak, said = snakemake(folder, "--dry-run", "--quiet", "rules", **both[name])
                if ("Nothing to be done" in said) != (state == "nothing to do"):
                    raise RuntimeError(f"{state} of {name}, {cells} cells, says {said[-500:]}")
                seconds.setdefault((cells, state, name), []).append(cpu)
                megabytes.setdefault((cells, state, name), []).append(peak)
            for name, arguments in both.items():
                what, key = f"{cells:,} cells, {state}{', bare' * (name == 'bare')}", (cells, state, name)
                results.append(stated(f"{what}, CPU time", seconds[key], "s"))
                results.append(stated(f"{what}, peak memory", megabytes[key], "MB"))
                if state == "dry run":
                    counts[cells, name] = pretend_finished(folder, **arguments)
    most = CELLS[-1]
    note = "; ".join("{} {:,} jobs, {:,} files".format(name, *counts[most, name]) for name in both)
    for state in ("dry run", "nothing to do"):
        pair = {name: seconds[most, state, name] for name in both}
        what = f"{state.capitalize()} of {most:,} cells, over a bare workflow"
        results.append(at_most(what, 1.3, ratios(pair, "ours", "bare"), "×", note=note))
        growth = {cells: [min(seconds[cells, state, "ours"])] for cells in CELLS}
        results.append(at_most(f"{state.capitalize()}: ten times the cells", 12, ratios(growth, most, CELLS[0]), "×"))
    results.append(at_most(f"{most:,} cells, peak memory", 1500, megabytes[most, "nothing to do", "ours"], unit="MB"))
    return results


def our_study(folder, cells):
    """Arguments of `snakemake` for a study of so many cells, with the predictors of the default study."""
    config = folder / f"{cells}.json"
    config.write_text(json.dumps(study_of(cells)))
    return {"file": ROOT / "Snakefile", "configfile": config}


def bare_study(folder, cells):
    """The same for a workflow of as many jobs, files and logs, and nothing else."""
    study = studies.grid(studies.resolve(study_of(cells)))
    paths = {stage: f"bare{cells}/{path}" for stage, path in grid.PATHS.items()}
    files = folder / f"bare{cells}.txt"
    files.write_text("\n".join(f"bare{cells}/{path}" for some in grid.files(study).values() for path in some))
    lists = {name: study[name] for name in ("predictors", "datasets")}
    file = folder / f"bare{cells}.smk"
    file.write_text(BARE.format(**paths, **lists, done=f"bare{cells}/tables", files=str(files)))
    return {"file": file}


def study_of(cells):
    seeds = list(range(cells // len(GRID["datasets"]) // len(GRID["components"])))
    given = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    return given | GRID | {"study": f"cells{cells}", "seeds": seeds, "evaluate_on": []}


def pretend_finished(folder, **arguments):
    """Make all outputs of a workflow, empty, and Snakemake's records of them: (jobs, files)."""
    output = snakemake(folder, "--cores", "1", "--quiet", "all", program=["-m", "benchmarks.pretend"], **arguments)[2]
    return tuple(map(int, re.search(r"pretended (\d+) jobs, (\d+) files", output).groups()))


def snakemake(folder, *arguments, file=ROOT / "Snakefile", configfile=None, program=("-m", "snakemake")):
    """Run Snakemake in `folder`; its CPU seconds, peak memory in MB, and what it wrote. RuntimeError where it fails."""
    command = [*program, "--snakefile", file, "--directory", folder, *arguments]
    command += ["--configfile", configfile] if configfile else []
    return run(folder, command)


def run(folder, command):
    """Run a command of Python's; its CPU seconds, peak memory in MB, and what it wrote. RuntimeError where it fails."""
    log = folder / "run.log"
    with log.open("w") as out:
        actions = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, out.fileno(), 2)]
        pid = os.posix_spawn(sys.executable, [sys.executable, *map(str, command)], os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{log.read_text()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, log.read_text()


def aggregation(folder, cells=10_000):
    """CPU seconds in which `correlate` reads and joins a made-up study, over those of reading its files with pyarrow,
    each in a process of its own."""
    seeds = cells // len(AGGREGATED["models"]) // len(AGGREGATED["datasets"]) // len(AGGREGATED["components"])
    study = folder / "study"
    with mock.patch("os.fsync"):  # files that need not survive a power cut
        synthetic_study.write_study(study, **AGGREGATED, seeds=list(range(seeds)), steps=50, every=10)
    commands = {
        "correlate": ["-m", "vit_plasticity.correlate", "--results", study, "--study", "synthetic"],
        "pyarrow": ["-c", READ_ALL, study],
    }
    commands["correlate"] += ["--output", folder / "tables"]
    seconds, megabytes = {}, {}
    for name, command in commands.items():
        cpu, megabytes[name], _ = run(folder, command)
        seconds[name] = [cpu]
    note = ", ".join(f"{values[0]:.1f} s {name}" for name, values in seconds.items())
    what = f"Aggregation of {cells:,} cells, {3 * cells:,} runs, {150 * cells:,} steps"
    return [
        at_most(f"{what}, over reading with pyarrow", 3, ratios(seconds, "correlate", "pyarrow"), "×", note=note),
        at_most(f"{what}, peak memory", 1500, [megabytes["correlate"]], "MB"),
    ]
