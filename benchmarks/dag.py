"""The workflow as it grows: parsing, dry runs, nothing to do, and the aggregation of 10,000 cells."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import synthetic_study

from benchmarks.harness import at_most, stated

ROOT = Path(__file__).parents[1]
CELLS = (1_000, 3_000, 10_000)
GRID = {
    "datasets": ["digits", "digits_c_contrast_5", "digits_c_gaussian_noise_5", "digits_c_motion_blur_5"],
    "components": ["mha", "fc1", "fc2", "ln2", "ln1"],
}
AGGREGATED = {"models": ["a", "b"], "datasets": [f"d{i}" for i in range(20)], "components": GRID["components"]}


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
    results, seconds = [], {}
    for cells in CELLS:
        config = folder / f"{cells}.json"
        seeds = cells // len(GRID["datasets"]) // len(GRID["components"])
        study = {"study": f"cells{cells}", "seeds": list(range(seeds)), "evaluate_on": {}}
        config.write_text(json.dumps(GRID | study))
        for what, prepare in (("dry run", None), ("nothing to do", pretend_finished)):
            if prepare:
                prepare(folder, config)
            cpu, megabytes = snakemake(folder, "--dry-run", "--quiet", "all", "--configfile", config)
            seconds[cells, what] = cpu
            results.append(stated(f"{cells:,} cells, {what}, CPU time", [cpu], "s"))
            results.append(stated(f"{cells:,} cells, {what}, peak memory", [megabytes], "MB"))
    for what in ("dry run", "nothing to do"):
        growth = seconds[CELLS[-1], what] / seconds[CELLS[0], what]
        results.append(at_most(f"{what.capitalize()}: 10,000 cells over 1,000", 12, [growth], "×"))
    worst = max(seconds.values())
    results.append(at_most("10,000 cells, dry run or nothing to do, CPU time", 60, [worst], unit="s"))
    memory = max(r.value for r in results if r.unit == "MB")
    results.append(at_most("10,000 cells, peak memory", 1500, [memory], unit="MB"))
    return results


def pretend_finished(folder, config):
    """Make all outputs of a study, empty, and Snakemake's records of them."""
    snakemake(folder, "--cores", "1", "--quiet", "all", "--configfile", config, program=["-m", "benchmarks.pretend"])


def snakemake(folder, *arguments, file=ROOT / "Snakefile", program=("-m", "snakemake")):
    """Run Snakemake in `folder`; its CPU seconds and peak memory in MB. Raises RuntimeError where it fails."""
    command = [sys.executable, *program, "--snakefile", file, "--directory", folder, *arguments]
    log = folder / "snakemake.log"
    with log.open("w") as out:
        actions = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, out.fileno(), 2)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        pid = os.posix_spawn(sys.executable, [str(c) for c in command], environment, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{log.read_text()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def aggregation(folder, cells=10_000):
    """Seconds in which `correlate` reads and joins a made-up study."""
    seeds = cells // len(AGGREGATED["models"]) // len(AGGREGATED["datasets"]) // len(AGGREGATED["components"])
    study = folder / "study"
    with mock.patch("os.fsync"):  # files that need not survive a power cut
        synthetic_study.write_study(study, **AGGREGATED, seeds=list(range(seeds)), steps=50, every=10)
    command = ["-m", "vit_plasticity.correlate", "--results", str(study), "--study", "synthetic"]
    started = time.perf_counter()
    status = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, *command, "--output", str(folder / "tables")])
    if status:
        raise RuntimeError(f"correlate failed with status {status}")
    return [
        at_most(
            f"Aggregation of {cells:,} cells, 30,000 runs, 1.5 million steps",
            30,
            [time.perf_counter() - started],
            unit="s",
        )
    ]
