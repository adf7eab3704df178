"""Where the wall time of a study goes: the demo study, whole."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import ROOT
from benchmarks.harness import at_most, stated

INTERVAL_S = 0.05
GROUPS = {"finetune": "fine-tuning jobs", "pretrain": "pre-training", "fetch": "datasets", "correlate": "analysis"}
GROUPS |= {"plots": "analysis"} | dict.fromkeys(("plasticity", "measure", "probe", "evaluate"), "measuring jobs")


def measure():
    cores = min(2, os.cpu_count())
    with tempfile.TemporaryDirectory() as folder:
        wall, seconds, imports = run(Path(folder), cores)
        trained = sum(
            sum(pq.read_table(file, columns=["duration_s"], partitioning=None)["duration_s"].to_pylist())
            for file in Path(folder, "results/demo/finetune").rglob("runs.parquet")
        )
    slots = wall * cores
    training = trained + seconds["pre-training"]
    split = {
        "training and evaluation of runs": trained,
        "pre-training": seconds["pre-training"],
        "fine-tuning jobs beside their runs": seconds["fine-tuning jobs"] - trained,
        "measuring jobs (plasticity, predictors, probes, shifted test sets)": seconds["measuring jobs"],
        "datasets": seconds["datasets"],
        "analysis (tables, figures)": seconds["analysis"],
        "no job: Snakemake, and cores without work": slots - sum(seconds.values()),
    }
    note = f"{wall:.0f} s wall on {cores} cores"
    return [
        at_most(
            "Demo study: what is not training, of its wall time",
            33.3,
            [100 * (1 - training / slots)],
            "%",
            note,
        ),
        *(stated(f"Demo study: {what}", [100 * part / slots], "%") for what, part in split.items()),
        stated(
            "Demo study: imports of the warm worker, CPU time (in the first job that waits for it)",
            [imports],
            "s",
        ),
    ]


def run(folder, cores):
    """Run the study; its wall seconds, the seconds in which jobs of each group held a core, and the worker's
    own CPU seconds."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    command += ["--cores", str(cores), "--quiet", "all", "--configfile", ROOT / "config.yaml"]
    seconds, imports = Counter(), 0.0
    with (folder / "log").open("w") as log:
        started = last = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
        while process.poll() is None:
            time.sleep(INTERVAL_S)
            now = time.perf_counter()
            stages, worker = look(process.pid)
            for stage, threads in stages:
                seconds[GROUPS[stage]] += threads * (now - last)
            imports, last = worker or imports, now
    if process.returncode:
        raise RuntimeError(f"the demo study failed:\n{(folder / 'log').read_text()[-2000:]}")
    return last - started, seconds, imports


def look(pid):
    """The stages that processes below `pid` run at this moment, each with its threads, and the CPU seconds of the warm
    worker itself."""
    stages, worker = [], None
    children = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append((int(entry.name), fields, (entry / "cmdline").read_bytes()))
        except OSError:
            continue  # it has ended meanwhile
    below = [pid]
    while below:
        for child, fields, line in children.get(below.pop(), []):
            below.append(child)
            # A worker's forks keep its command line; it is the one below Snakemake itself.
            if b"vit_plasticity.runtime.worker" in line:
                worker = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                below.pop()
            elif (found := re.search(rb"\x00-m\x00vit_plasticity\.(?:warm\x00)?(\w+)\x00", line)) is not None:
                threads = re.search(rb"\x00--threads\x00(\d+)\x00", line)
                stages.append((found[1].decode(), int(threads[1]) if threads else 1))
    return stages, worker
