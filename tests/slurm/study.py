"""The smoke study in a working copy of the repository: run, looked at, and met in the middle of a cell."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pandas as pd
from pandas.testing import assert_frame_equal

ROOT = Path(__file__).parents[2]
SLURM = ["--profile", "slurm", "--slurm-init-seconds-before-status-checks", "1"]
NOT_NUMBERS = ["duration_s", "step_duration_s", "peak_memory_mb", "git_commit", "device"]


class Study:
    """A working copy in `folder`, whose commands run where they find the cluster `slurm`."""

    def __init__(self, folder, slurm):
        self.folder, self.slurm = Path(folder), slurm
        self.config = ["workflow/studies/smoke.yaml", "tests/slurm/longer.yaml"]

    @classmethod
    def checkout(cls, folder, slurm):
        """A copy of the files that git would commit, as a clone of this checkout has them."""
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        for name in filter(None, listed.stdout.decode().split("\0")):
            source, target = ROOT / name, Path(folder, name)
            if source.exists() or source.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        # On a CPU, where these tests run, the last bits depend on the number of threads.
        fill_in(Path(folder, "profiles/slurm/config.yaml"), cpus=1)
        return cls(folder, slurm)

    def copy(self, folder, *, without=(), **site):
        """A copy of this study that has still to make the cells `without`, such as "digits/mha/seed=0", and the tables.

        site: what its site fills in for the slurm profile.
        """
        shutil.copytree(self.folder, folder, symlinks=True)
        for cell in without:
            shutil.rmtree(self.cell(cell, folder))
        shutil.rmtree(folder / "results/smoke/tables")
        fill_in(folder / "profiles/slurm/config.yaml", **site)
        return Study(folder, self.slurm)

    def cell(self, name, folder=None):
        """The folder of a cell's results."""
        return Path(folder or self.folder, "results/smoke/finetune/vit_smoke", name)

    def log(self, name):
        """What a cell said, last time it ran; nothing between two tries, when Snakemake has removed the log."""
        with suppress(FileNotFoundError):
            return Path(self.folder, f"logs/smoke/finetune/vit_smoke/{name}.log").read_text()
        return ""

    def run(self, *options):
        """Run Snakemake to its end, which must be a good one."""
        with self.start(*options) as process:
            status = process.wait(240)
        assert status == 0, self.said()

    @contextmanager
    def start(self, *options, **variables):
        """Snakemake running in the background, killed at the end of the block; a block that fails leaves no job."""
        with (self.folder / "snakemake.out").open("w") as out:
            process = subprocess.Popen(
                self.command(*options), cwd=self.folder, env=self.slurm.env | variables, stdout=out, stderr=out
            )
        try:
            yield process
        except BaseException:
            process.kill()
            self.slurm.end_jobs(self.folder)
            raise
        finally:
            process.kill()
            process.wait()

    def command(self, *options):
        """The command line of Snakemake for this study."""
        return ["snakemake", "--configfile", *self.config, *options]

    def jobs_of_the_cluster(self):
        """How many jobs of each rule are still to do, of those rules that always run on the cluster."""
        text = "\n" + "\n".join(file.read_text() for file in (self.folder / "workflow/rules").glob("*.smk"))
        local = {rule.partition(":")[0] for rule in text.split("\nrule ")[1:] if "localrule: True" in rule}
        shown = self.slurm.run(*self.command("--profile", "slurm", "-n", "--quiet", "rules"), cwd=self.folder)
        jobs = Counter({rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", shown, re.MULTILINE)})
        return Counter({rule: n for rule, n in jobs.items() if rule not in {*local, "all", "total"}})

    def said(self):
        """What Snakemake printed, last time it ran."""
        return (self.folder / "snakemake.out").read_text()

    def tables(self):
        """Every table of the study, by name, without what may differ: durations, memory, provenance."""
        files = sorted((self.folder / "results/smoke/tables").glob("*.parquet"))
        return {file.stem: pd.read_parquet(file).drop(columns=NOT_NUMBERS, errors="ignore") for file in files}


def assert_same_tables(study, reference):
    """All tables of two studies are equal, to the bit."""
    tables, expected = study.tables(), reference.tables()
    assert tables.keys() == expected.keys()
    for name, table in tables.items():
        assert_frame_equal(table, expected[name], check_exact=True, obj=name)


def fill_in(profile, **site):
    """Fill in the site block of the slurm profile, as a site would: account, cpu_partition, gpu_partition, gres, …"""
    text = profile.read_text()
    for name, value in site.items():
        text, n = re.subn(rf"^(  {name}:) \S+", rf"\1 {value}", text, flags=re.MULTILINE)
        assert n == 1, f"{profile} has no {name} to fill in"
    profile.write_text(text)


class FrozenCell:
    """A fine-tuning job that was stopped in the middle of its second run, so that a test has time to meet it there."""

    def __init__(self, slurm, job_id):
        self.slurm, self.job_id = slurm, job_id
        processes = slurm.wait_for(lambda: cell_processes(slurm, job_id), f"job {job_id} to start its cell", 180)
        [(self.pid, environment)] = processes.items()
        self.devices = environment["CUDA_VISIBLE_DEVICES"]
        arguments = _command_line(self.pid)
        option = {name: value for name, value in pairwise(arguments) if name.startswith("--")}
        self.name = f"{Path(option['--dataset']).name}/{option['--component']}/seed={option['--seed']}"
        self.parent = _command_line(_status(self.pid)["PPid"])
        slurm.wait_for(self._finished_its_first_run, f"job {job_id} to finish its first run")
        os.kill(self.pid, signal.SIGSTOP)

    def _finished_its_first_run(self):
        # The work folder is named as the lock file that its owner holds open.
        for file in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if (opened := file.readlink()).suffix == ".lock":
                    return any(opened.with_suffix("").glob("*.run"))
        return False

    def kill(self):
        """End it as the kernel does when memory runs out: at once, without a word to it."""
        os.kill(self.pid, signal.SIGKILL)

    def thaw(self):
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def thaw_when_asked_to_stop(self):
        """Wait for SIGTERM to be sent to it, and let it answer."""
        self.slurm.wait_for(self._asked_to_stop, f"job {self.job_id} to be asked to stop", seconds=180)
        self.thaw()

    def _asked_to_stop(self):
        status = _status(self.pid)
        pending = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
        return pending >> (signal.SIGTERM - 1) & 1 or not status["State"].startswith("T")


def _status(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def _command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def cell_processes(slurm, job_id):
    """The process of a job that trains, while there is one; id → environment."""
    return slurm.processes(job_id, "vit_plasticity.warm", "finetune")
