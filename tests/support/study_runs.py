"""What the real Snakemake did in a small study: its jobs, and the tables that it left."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import processes
import pyarrow.parquet as pq

JOB = re.compile(r"^(?:local)?rule (\w+):\n(?:    input: .*\n)?    output: ([^,\n]+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One call of Snakemake. started: (rule, first output file) of each job, in the order in which they started."""

    status: int
    said: str
    started: list

    def outputs(self, rule):
        """The first output of each job of a rule."""
        return [output for name, output in self.started if name == rule]


def snakemake(directory, *options, config, **environment):
    """Run Snakemake in the folder `directory` with `config`, the files of a study, laid over the default one."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = processes.snakemake(directory, *options, check=False, config=config, env=environment)
    return Run(done.returncode, done.stdout, JOB.findall(done.stdout))


def rows(directory, study, table):
    """The rows of one of a study's tables, as dicts."""
    return pq.read_table(Path(directory, "results", study, "tables", f"{table}.parquet"), partitioning=None).to_pylist()
