"""A study under fire: its cells and its Snakemake are killed at chosen moments, and it completes all the same.

Each cell is frozen before it is killed, so that what lay on the disk at that moment is known exactly; its next process
must then go on from the newest checkpoint that was whole, and train no run again that was finished. Linux only.
"""

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from processes import command, copy_checkout, copy_study, differences, edit, smoke_config, snakemake, write_config

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
LRS = (0.03, 0.1)
STUDY = smoke_config(
    study="soak",
    datasets=["digits"],
    evaluate_on=[],
    finetune__lrs=list(LRS),
    finetune__steps=60,
    finetune__evaluation_period=3,
)
"""Four cells of two runs, with a checkpoint at each of twenty evaluations."""

PERIOD = STUDY["finetune"]["evaluation_period"]


@dataclass(frozen=True)
class Strike:
    """Whom to hit, when, and how.

    target: the job itself, its client in Snakemake's shell, Snakemake, its process group, as Ctrl-C does, or its warm
    worker, without which later jobs run in processes of their own.
    moment: "any", in the middle of writing a "checkpoint", or of the "final" files.
    """

    target: str
    moment: str
    signal: int

    def __str__(self):
        return f"{signal.Signals(self.signal).name} to {self.target} at {self.moment} moment"


CELL_STRIKES = [
    Strike(*s) for s in itertools.product(("job", "client"), ("any", "checkpoint", "final"), (KILL, TERM, INT))
]
WORKER_STRIKE = Strike("worker", "any", KILL)
SNAKEMAKE_STRIKES = [Strike("snakemake", "any", s) for s in (KILL, TERM, INT)] + [Strike("group", "any", INT)]


@dataclass
class Tally:
    """What happened, and what must not have."""

    kills: int = 0
    during_checkpoint: int = 0
    during_final: int = 0
    of_snakemake: int = 0
    rounds: int = 1
    resumed: int = 0
    steps_lost_at_most: int = 0
    retrained: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    different: list = field(default_factory=list)

    def __str__(self):
        parts = [
            f"kills made {self.kills} ({self.during_checkpoint} while a checkpoint was written, {self.during_final} "
            f"while the final files were, {self.of_snakemake} of Snakemake)",
            f"cells lost {len(self.lost)}",
            f"cells retrained {len(self.retrained)}",
            f"gone on from a checkpoint {self.resumed} times",
            f"steps trained twice: none before a last checkpoint, at most {self.steps_lost_at_most} beyond",
            "tables equal" if not self.different else f"tables DIFFER: {'; '.join(self.different)}",
        ]
        return ", ".join(parts + self.retrained + self.lost)


class Study:
    """The study in its own folder and checkout, and the Snakemake that runs it."""

    def __init__(self, folder, fetched=None):
        """fetched: the folder of a finished smoke study, whose datasets and model are taken over."""
        self.folder = Path(folder)
        self.checkout = copy_checkout(self.folder / "checkout")
        edit(
            self.checkout / "workflow" / "rules" / "finetune.smk",
            "--seed {wildcards.seed}",
            "--seed {wildcards.seed} --checkpoint-interval-s 0",
        )
        self.work = self.folder / "work"
        self.logs = self.work / "logs" / "soak" / "finetune"
        if fetched:
            copy_study(fetched, self.work, "results")
        self.config = write_config(self.folder / "study.yaml", STUDY)
        self.snakemake = None

    def start(self):
        """Start Snakemake as the leader of a process group of its own; a failed job is tried again and again."""
        arguments = command(
            self.work, "--retries", "1000", "--quiet", "progress", config=self.config, checkout=self.checkout
        )
        with (self.folder / "snakemake.txt").open("a") as output:
            self.snakemake = subprocess.Popen(
                arguments, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, stdin=subprocess.DEVNULL
            )

    def unlock(self):
        snakemake(self.work, "--unlock", config=self.config, checkout=self.checkout)

    def undisturbed(self):
        """Run the study once without harm."""
        snakemake(self.work, config=self.config, checkout=self.checkout)

    def jobs(self):
        """The jobs that now work on its cells."""
        return jobs_of(self.work / "results" / "soak")

    def outputs(self, cell):
        return self.work / "results" / "soak" / "finetune" / cell

    def log(self, cell):
        """What the present or last process of a cell has said."""
        log = self.logs / f"{cell}.log"
        return log.read_text() if log.exists() else ""

    def cells(self):
        """The folders of all cells, as paths below ``finetune``."""
        places = itertools.product(STUDY["components"], STUDY["seeds"])
        return [f"vit_smoke/digits/{component}/seed={seed}" for component, seed in places]

    def said(self):
        return (self.folder / "snakemake.txt").read_text()[-3000:]


@dataclass
class Job:
    """A process that works on a cell and holds its lock; log: its standard output; client: who waits for it in the
    shell of Snakemake, if it is not the shell itself; folder: its work folder."""

    pid: int
    log: str
    client: int | None
    folder: Path

    def freeze(self):
        """Stop the job and wait until it stands still; False if it ended before."""
        try:
            os.kill(self.pid, signal.SIGSTOP)
            while (state := _state(self.pid)) not in "TZ":
                time.sleep(0.0005)
        except OSError:
            return False
        return state == "T"


def jobs_of(work):
    """The jobs that now work on cells whose files lie below `work`."""
    clients, found = {}, []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = _words(entry.name) if entry.name.isdigit() else []
            if any(word.startswith("vit_plasticity.") for word in words):
                output = str((entry / "fd" / "1").readlink())
                if lock := _lock(entry, work):
                    found.append(Job(int(entry.name), output, None, Path(lock).with_suffix("")))
                elif "vit_plasticity.warm" in words:
                    clients[output] = int(entry.name)
    for job in found:
        job.client = clients.get(job.log)
    return found


def workers_of(snakemake_pid):
    """The warm workers that a Snakemake has started."""
    with suppress(OSError):
        children = Path(f"/proc/{snakemake_pid}/task/{snakemake_pid}/children").read_text().split()
        return [int(pid) for pid in children if "vit_plasticity.runtime.worker" in _words(pid)]
    return []


def _lock(process, work):
    """The lock file of a cell below `work` that a process has open, or None."""
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):
            if (name := str(descriptor.readlink())).endswith(".lock") and name.startswith(f"{work}/"):
                return name
    return None


def _words(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return []


def _state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@dataclass
class Snapshot:
    """What a cell had on the disk when it was hit: finished runs, and the step of the newest whole checkpoint of each
    unfinished one. exact: nothing was written after that."""

    finished: set
    steps: dict
    exact: bool


def snapshot(folder, exact):
    files = sorted(folder.glob("*.*")) if folder.is_dir() else []
    finished = {float(f.stem.removeprefix("lr=")) for f in files if f.suffix == ".run"}
    steps = {}
    for file in files:
        if file.suffix in (".checkpoint", ".previous"):
            run = float(file.stem.removeprefix("lr="))
            steps[run] = max(steps.get(run, 0), json.loads(_metadata(file)["state"])["step"])
    return Snapshot(finished, {run: step for run, step in steps.items() if run not in finished}, exact)


def _metadata(checkpoint):
    """The metadata of a checkpoint file, which is a safetensors file, read without the code under test."""
    payload = checkpoint.read_bytes()
    return json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])["__metadata__"]


class Harness:
    """Hits a study until it has taken all `strikes`, round after round, and compares it with an undisturbed one.

    progress: called with the number of kills made, after each.
    """

    def __init__(self, study, reference, strikes, seed=0, progress=lambda kills: None):
        self.study, self.reference, self.strikes, self.progress = study, reference, list(strikes), progress
        self.random, self.tally, self.before = random.Random(seed), Tally(), {}

    def run(self):
        """The `Tally` of it all."""
        self.study.start()
        while True:
            if self.study.snakemake.poll() is None:
                self._strike_or_wait()
            elif self.study.snakemake.returncode != 0:
                self._restart()
            else:
                self._compare()
                if not self.strikes:
                    return self.tally
                self._next_round()

    def _strike_or_wait(self):
        if not self.strikes:
            self.study.snakemake.wait()
            return
        strike = self.strikes[0]
        hit = self._hit_snakemake if strike.target in ("snakemake", "group", "worker") else self._hit_cell
        if hit(strike):
            self.tally.kills += 1
            self.progress(self.tally.kills)
            del self.strikes[0]

    def _hit_snakemake(self, strike):
        """Hit Snakemake while a cell is at work, and wait until it has ended."""
        if not self.study.jobs():
            time.sleep(0.02)
            return False
        time.sleep(self.random.uniform(0, 1))
        victim = self.study.snakemake
        if strike.target == "worker":
            for pid in workers_of(victim.pid):
                os.kill(pid, strike.signal)
            return True
        (os.killpg if strike.target == "group" else os.kill)(victim.pid, strike.signal)
        self._await_end(victim)
        self.tally.of_snakemake += 1
        # From here on cells may have gone further than any snapshot says.
        self.before = {cell: Snapshot(s.finished, s.steps, exact=False) for cell, s in self.before.items()}
        return True

    def _await_end(self, victim):
        """Wait until Snakemake has ended.

        Its handler of SIGTERM takes a lock that its scheduler may hold at that moment, and then it waits for itself:
        once no job has been at work for a while, it is killed, as a cluster would do.
        """
        quiet_since = time.monotonic()
        while victim.poll() is None:
            if self.study.jobs():
                quiet_since = time.monotonic()
            if time.monotonic() - quiet_since > 30:
                victim.kill()
            time.sleep(0.1)

    def _hit_cell(self, strike):
        """Hit one of the cells at work; False if it ended before the moment came."""
        found = self.study.jobs()
        if not found:
            time.sleep(0.005)
            return False
        job = self.random.choice(found)
        cell = str(Path(job.log).relative_to(self.study.logs).with_suffix(""))
        if not self._await_moment(job, cell, strike.moment) or not job.freeze():
            return False
        self._check_log(cell)
        self.before[cell] = now = snapshot(job.folder, exact=strike.signal == KILL)
        self.tally.during_checkpoint += bool(_hidden(job.folder))
        self.tally.during_final += bool(_hidden(self.study.outputs(cell)))
        self.tally.steps_lost_at_most += PERIOD * (strike.signal == KILL and len(now.finished) < len(LRS))
        with suppress(ProcessLookupError):
            os.kill(job.client if strike.target == "client" and job.client else job.pid, strike.signal)
            if strike.signal != KILL:
                os.kill(job.pid, signal.SIGCONT)
        deadline = time.monotonic() + 60
        while _state_or_gone(job.pid) != "Z":
            assert time.monotonic() < deadline, f"{strike} did not end the job of {cell}"
            time.sleep(0.002)
        if "\ncomplete: " in self.study.log(cell):  # it was asked to stop after its last step, and ended well
            del self.before[cell]
        return True

    def _await_moment(self, job, cell, moment):
        """Wait for the moment, watching for half-written files; False if the job ends before it comes."""
        if moment == "any":
            time.sleep(self.random.uniform(0, 0.8))
            return True
        folder = job.folder if moment == "checkpoint" else self.study.outputs(cell)
        time.sleep(self.random.uniform(0, 0.3) if moment == "checkpoint" else 0)
        while _state_or_gone(job.pid) != "Z":
            if _hidden(folder):
                return True
            time.sleep(0.0003)
        return False

    def _restart(self):
        """Start Snakemake again after it was hit, at once, orphans or not."""
        if any(self.study.work.glob(".snakemake/locks/*")):
            self.study.unlock()
        self.study.start()

    def _check_log(self, cell):
        """Hold what the present process of a cell has said against what its predecessor left behind."""
        before, said = self.before.get(cell), self.study.log(cell)
        for lr in LRS:
            resumed = re.search(rf"^lr {lr}: going on from step (\d+)$", said, re.MULTILINE)
            ended = re.search(rf"^lr={lr} outcome=", said, re.MULTILINE)
            if not (resumed or ended):
                continue
            self.tally.resumed += bool(resumed)
            start, left = int(resumed[1]) if resumed else 0, before.steps.get(lr, 0) if before else 0
            if before and (lr in before.finished or start < left or (before.exact and start > left)):
                self.tally.retrained.append(f"{cell} lr {lr}: from step {start}, {before} was there")

    def _compare(self):
        for cell in self.study.cells():
            self._check_log(cell)
            if not (self.study.outputs(cell) / "runs.parquet").exists():
                self.tally.lost.append(cell)
        self.tally.different += differences(self.study.work, self.reference, study="soak")
        self.before = {}

    def _next_round(self):
        """Throw the cells away, so that there is something to hit again."""
        for cell in self.study.cells():
            shutil.rmtree(self.study.outputs(cell))
        self.tally.rounds += 1
        self.study.start()


def _hidden(folder):
    """The names of half-written files in a folder."""
    with suppress(OSError):
        return [file.name for file in Path(folder).iterdir() if file.name.startswith(".")]
    return []


def _state_or_gone(pid):
    try:
        return _state(pid)
    except OSError:
        return "Z"
