"""What is known of a running study, and the few lines that tell it. Standard library only."""

import re
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

PROGRESS = re.compile(r"^(?:lr (?P<lr>\S+): )?step (?P<step>\d+)/(?P<steps>\d+)(?: loss (?P<loss>\S+))?", re.MULTILINE)
"""A stage's own line on how far it is, in its log."""
STAGE_SAID = re.compile(r"^vit_plasticity\.\w+: (?:error|failed): .*", re.MULTILINE | re.DOTALL)
MOST_JOBS = 8


@dataclass
class Job:
    """One job: its rule, what it is about, its log, and when it was started."""

    rule: str
    name: str
    log: str
    started: float

    def __str__(self):
        return f"{self.rule} {self.name}".rstrip()

    def progress(self):
        """(step, steps, loss) as its log tells them last, or None."""
        found = list(PROGRESS.finditer(_end_of(self.log)))
        return (int(found[-1]["step"]), int(found[-1]["steps"]), found[-1]["loss"]) if found else None


class Study:
    """The jobs of one run of Snakemake: planned, running, finished."""

    def __init__(self):
        self.planned, self.finished, self.running, self.seconds = Counter(), Counter(), {}, defaultdict(float)
        self.done = self.total = 0
        self.began = None

    def plan(self, stats):
        """stats: rule → number of jobs, and their total, as Snakemake counts them."""
        self.planned = Counter({rule: n for rule, n in stats.items() if rule != "total"})
        self.total = stats["total"]

    def start(self, about, now):
        """A job begins. about: Snakemake's record of it."""
        self.began = now if self.began is None else self.began
        name = " ".join(f"{key}={value}" if key == "seed" else str(value) for key, value in about["wildcards"].items())
        self.running[about["jobid"]] = Job(about["rule_name"], name, next(iter(about["log"]), ""), now)

    def finish(self, jobid, now):
        """A job has ended well."""
        if job := self.running.pop(jobid, None):
            self.finished[job.rule] += 1
            self.seconds[job.rule] += now - job.started

    def fail(self, jobid):
        """A job has failed; its Job."""
        return self.running.pop(jobid, None) or f"job {jobid}"

    def seconds_left(self, now):
        """An estimate of the time to the end, or None while too little is known."""
        per_job = {rule: self.seconds[rule] / n for rule, n in self.finished.items()}
        for job in self.running.values():
            if job.rule not in per_job and (progress := job.progress()) and progress[0]:
                per_job[job.rule] = (now - job.started) * progress[1] / progress[0]
        heaviest = self.planned.most_common(1)
        if not heaviest or heaviest[0][0] not in per_job or not (elapsed := now - self.began):
            return None
        known = sum(per_job.values()) / len(per_job)
        work = sum((n - self.finished[rule]) * per_job.get(rule, known) for rule, n in self.planned.items())
        work -= sum(min(now - job.started, per_job.get(job.rule, known)) for job in self.running.values())
        at_once = max(1.0, len(self.running), sum(self.seconds.values()) / elapsed)
        return max(work, 0.0) / at_once

    def lines(self, now):
        """The lines that tell the state: one for the study, one for each job that runs."""
        if not self.running:
            return []
        left = self.seconds_left(now)
        time_left = f", about {duration(left)} left" if left is not None else ""
        head = f"{self.done} of {self.total} jobs done after {duration(now - self.began)}{time_left}"
        jobs = sorted(self.running.values(), key=lambda job: job.started)
        lines = [head, *(f"  {job}{_how_far(job, now)}" for job in jobs[:MOST_JOBS])]
        if len(jobs) > MOST_JOBS:
            lines.append(f"  and {len(jobs) - MOST_JOBS} more")
        width = shutil.get_terminal_size().columns - 1
        return [line[:width] for line in lines]


def said_by_stage(logs):
    """What a failed job's log says of the reason: the stage's own sentence, or its last lines; and where the log is."""
    text = "".join(_end_of(log) for log in logs)
    found = STAGE_SAID.search(text)
    words = found[0].strip() if found else "\n".join(text.strip().splitlines()[-5:]) or "it left no word"
    return "\n  ".join([*words.splitlines(), *(f"log: {log}" for log in logs)])


def duration(seconds):
    """Seconds as people say them: 42 s, 3 min 5 s, 2 h 10 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _how_far(job, now):
    if not (progress := job.progress()):
        return f": {duration(now - job.started)}"
    step, steps, loss = progress
    return f": step {step} of {steps}" + (f", loss {loss}" if loss else "")


def _end_of(log, n=8192):
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - n))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
