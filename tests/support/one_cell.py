"""One cell, fine-tuned by its stage alone, as the tests of faults start, stop and damage it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from processes import stable, stage

PARAMS = {
    "lrs": [0.1],
    "steps": 120,
    "evaluation_period": 4,
    "batch_size": 16,
    "warmup_steps": 2,
    "crop_scale": [0.6, 1.0],
    "flip": False,
}


class Cell:
    """A cell of the smoke study's model on its digits, which writes below `folder` and checkpoints at each evaluation.

    resources: the working folder of the finished smoke study. options: replace those of the command line, such as
    ``seed=1``; ``params`` replaces single settings.
    """

    def __init__(self, folder, resources, params=(), **options):
        self.folder, self.output = Path(folder), Path(options.get("output", Path(folder, "cell", "runs.parquet")))
        self.work = self.output.parent / "runs"
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "model": resources / "resources" / "models" / "vit_smoke",
            "dataset": resources / "resources" / "datasets" / "digits",
            "component": "mha",
            "seed": 0,
            "params": json.dumps(PARAMS | dict(params)),
            "output": self.output,
            "checkpoint-interval-s": 0,
        } | {name.replace("_", "-"): value for name, value in options.items()}
        self.arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]

    def run(self, **options):
        """Fine-tune to the end; the finished process."""
        return stage("finetune", *self.arguments, cwd=self.folder, **options)

    def start(self):
        """Start fine-tuning; the running process, a client of the tests' warm worker."""
        return subprocess.Popen(
            [sys.executable, "-m", "vit_plasticity.warm", "finetune", *self.arguments],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def interrupted(self):
        """Stop fine-tuning once there are two generations of a checkpoint; returns what it said."""
        process = self.start()
        wait_for(lambda: process.poll() is not None or any(self.work.glob("*.previous")))
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 128 + signal.SIGTERM, said
        return said

    def checkpoints(self):
        """The files of the work folder, newest generation first: (…/lr=0.1.checkpoint, …/lr=0.1.previous)."""
        return sorted(self.work.glob("lr=0.1.*"))

    def numbers(self):
        """All that must repeat of what the cell wrote."""
        tables = [stable(self.output.with_name(name)) for name in ("runs.parquet", "history.parquet")]
        return *tables, self.output.with_name("trained.safetensors").read_bytes()


def wait_for(condition, seconds=60):
    """Wait until a condition holds, looking often; failing that is an error."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.002)
