"""``sbatch`` as Snakemake's executor finds it: the real one, asked again while SLURM's controller is busy, and not at
all for a job that refused its input.

For Snakemake each failed submission and each failed job is an attempt, and each attempt asks for more memory and time.
Standard library only.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parents[3] / "workflow" / "bin"
"""The folder by which this program stands on the PATH before the real one."""

BUSY = re.compile(
    "Socket timed out|Unexpected message received|Zero Bytes were transmitted|Unable to contact slurm controller"
    "|Connection refused|standby mode|temporarily un(able|available)"
)
PAUSES_S = (5, 10, 20, 40, 80, 160)
LOG = re.compile(r"^ +log: (.+?) \(check log file", re.MULTILINE)
REFUSED = re.compile(r"^.*\bvit_plasticity\.\w+: error: .*$", re.MULTILINE)
LAST = "last-job"
"""File beside the logs of a job's attempts: the run of Snakemake that submitted the last one, and its id."""


def main(arguments, pauses_s=PAUSES_S):
    """Submit with the arguments of sbatch; returns its exit status, or 1 for a job that refused its input before."""
    options = dict(pairwise(arguments))
    run, logs = options.get("--job-name", ""), Path(options.get("--output", "")).parent
    if refusal := _refusal(logs, run):
        print(f"{refusal}\nRefused input would be refused again: not submitted a second time.", file=sys.stderr)
        return 1
    done = _submit(arguments, options, pauses_s)
    if done.returncode == 0 and run:
        (logs / LAST).write_text(f"{run}\n{done.stdout.strip().partition(';')[0]}", encoding="utf-8")
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def _refusal(logs, run):
    """What the last attempt of this job said when it refused its input, in this run of Snakemake; or None."""
    try:
        last_run, job_id = (logs / LAST).read_text(encoding="utf-8").split()
        log = LOG.findall((logs / f"{job_id}.log").read_text(encoding="utf-8", errors="replace"))[-1]
        refused = REFUSED.search(Path(log).read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, IndexError):
        return None
    return refused[0] if refused and last_run == run else None


def _submit(arguments, options, pauses_s):
    """The finished process of the real sbatch: the first one that did not find the controller busy."""
    script = sys.stdin.read() if "/dev/stdin" in arguments else ""
    for pause_s in (*pauses_s, None):
        done = _run(["sbatch", *arguments], script)
        if done.returncode == 0 or pause_s is None or not BUSY.search(done.stderr):
            return done
        time.sleep(pause_s)  # without a word: for Snakemake's executor any word of a failed submission is its end
        if taken := _taken(options):
            return subprocess.CompletedProcess(arguments, 0, f"{taken}\n", "")


def _taken(options):
    """The id of the job where the controller took it although it did not answer in time; else None."""
    if not {"--job-name", "--comment"} <= options.keys():
        return None
    name = f"--name={options['--job-name']}"
    listed = _run(["squeue", "--noheader", "--states=PENDING,RUNNING", name, "--format=%i %k"]).stdout
    jobs = (line.strip().split(" ", 1) for line in listed.splitlines())
    return next((job[0] for job in jobs if job[1:] == [options["--comment"]]), None)


def _run(command, text=""):
    others = [entry for entry in os.environ["PATH"].split(os.pathsep) if Path(entry).resolve() != HERE]
    if not (program := shutil.which(command[0], path=os.pathsep.join(others))):
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]}: command not found\n")
    return subprocess.run([program, *command[1:]], input=text, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
