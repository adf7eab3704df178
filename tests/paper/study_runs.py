"""Real Snakemake runs of small studies, each in a folder of its own."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """What one call of Snakemake did. started: (rule, output files) of each job, in the order in which they started."""

    status: int
    said: str
    started: list

    def outputs(self, rule):
        """The first output of each job of a rule."""
        return [outputs[0] for name, outputs in self.started if name == rule]


def snakemake(directory, *options, configfiles, **environment):
    """Run Snakemake on one core in `directory`, with studies laid over config.yaml, as a user of the checkout would."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(directory), *options]
    done = subprocess.run(
        [*command, "--configfile", *map(str, configfiles)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    started = re.findall(r"^(?:local)?rule (\w+):\n(?:    input: .*\n)?    output: (.*)$", said, re.MULTILINE)
    return Run(done.returncode, said, [(rule, outputs.split(", ")) for rule, outputs in started])


def rows(directory, study, table):
    """The rows of one of a study's tables, as dicts."""
    return pq.read_table(Path(directory, "results", study, "tables", f"{table}.parquet"), partitioning=None).to_pylist()
