"""What a fine-tuning cell costs beside its training: started cold, and in the warm worker of a local Snakemake."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.harness import at_most, stated
from vit_plasticity import vit
from vit_plasticity.runtime import client
from vit_plasticity.study.config import settings

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
    return [
        at_most("A cell's overhead in the warm worker", 1, [wall for wall, _ in later], unit="s"),
        stated("A cell's overhead in the warm worker, the first, which imports", [first[0]], "s"),
        at_most("A cell's overhead, started cold, CPU time", 12, [cpu for _, cpu in cold], unit="s"),
        stated("A cell's overhead, started cold, wall time", [wall for wall, _ in cold], "s"),
    ]


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
