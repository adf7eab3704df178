"""What a fine-tuning cell costs beside its training steps: its job, cold and warm; its evaluations; its batches."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq
import yaml

from benchmarks import ROOT
from benchmarks.harness import at_most, stated
from vit_plasticity import fetch, finetune, vit
from vit_plasticity.data.batches import TrainingBatches
from vit_plasticity.runtime import client
from vit_plasticity.study.config import settings
from vit_plasticity.training import cell

PARAMS = {"lrs": [0.1], "steps": 20, "evaluation_period": 20, "batch_size": 16, "warmup_steps": 2, "flip": False}
COLD, WARM = 2, 6


def measure():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        small = settings("pretrain", '{"embed_dim": 64, "num_heads": 4}')
        vit.save(vit.new_model(small, 10), folder / "model", {"benchmark": True})
        command = [sys.executable, "-m", "vit_plasticity.fetch", "dataset", "digits", "--output", folder / "digits"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        cold = [run_cell(folder, "vit_plasticity.finetune", seed) for seed in range(COLD)]
        client.start_worker()
        first = run_cell(folder, "vit_plasticity.warm", COLD, "finetune")  # waits for the imports
        later = [run_cell(folder, "vit_plasticity.warm", COLD + 1 + i, "finetune") for i in range(WARM)]
        client.start_worker.process.stdin.close()
        client.start_worker.process.wait()
        evaluating, batching = shares_of_a_cell(folder)
    return [
        at_most("A cell's overhead in the warm worker", 1, [wall for wall, _ in later], unit="s"),
        stated("A cell's overhead in the warm worker, the first, which imports", [first[0]], "s"),
        at_most("A cell's overhead, started cold, CPU time", 12, [cpu for _, cpu in cold], unit="s"),
        stated("A cell's overhead, started cold, wall time", [wall for wall, _ in cold], "s"),
        at_most("A cell of the demo study: evaluation and batches", 10, [evaluating + batching], "%"),
        stated("A cell of the demo study: evaluation", [evaluating], "%"),
        stated("A cell of the demo study: batches", [batching], "%"),
    ]


def shares_of_a_cell(folder):
    """Per cent of the seconds of a whole cell of the demo study, in this process, that evaluations and making batches
    take."""
    given = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    entry = json.dumps(given["catalog"]["models"]["vit_mini"])
    command = ["--dataset", folder / "digits", "--model", folder / "vit_mini", "--component", "full", "--seed", "0"]
    command += ["--params", json.dumps(given["finetune"]), "--output", folder / "demo" / "runs.parquet"]
    with (
        contextlib.redirect_stdout(None),
        clocked(cell.Cell, "evaluate") as evaluating,
        clocked(TrainingBatches, "__call__") as batching,
    ):
        fetch.main(["model", "vit_mini", "--catalog", entry, "--output", str(folder / "vit_mini")])
        started = time.perf_counter()
        finetune.main(list(map(str, command)))
        whole = time.perf_counter() - started
    return 100 * sum(evaluating) / whole, 100 * sum(batching) / whole


@contextlib.contextmanager
def clocked(owner, name):
    """A list that gets the wall seconds of every call of a method within."""
    method, seconds = getattr(owner, name), []

    def timed(*arguments):
        started = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            seconds.append(time.perf_counter() - started)

    with mock.patch.object(owner, name, timed):
        yield seconds


def run_cell(folder, module, seed, *stage):
    """Wall and CPU seconds of a cell, less those in which it trained and evaluated."""
    output = folder / f"seed={seed}" / "runs.parquet"
    command = [
        sys.executable, "-m", module, *stage, "--model", folder / "model", "--dataset", folder / "digits",
        "--component", "mha", "--seed", str(seed), "--params", json.dumps(PARAMS),
        "--output", output,
    ]  # fmt: skip
    cpu, started = _cpu_of_children(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    wall, cpu = time.perf_counter() - started, _cpu_of_children() - cpu
    trained = pq.read_table(output, columns=["duration_s"], partitioning=None)["duration_s"][0].as_py()
    return wall - trained, cpu - trained


def _cpu_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
