"""A real SLURM on this machine: one node on loopback, two fake GPUs, a normal and a preemptible partition.

It needs no systemd and no free standard port, keeps everything in one folder, and stops, by process id, all it started.
The GPUs are character devices that every machine has: SLURM hands them out as it would hand out real ones, and sets
``CUDA_VISIBLE_DEVICES``, but CUDA finds nothing behind them, and so jobs are told to compute on the CPU.
"""

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

BUSY = "Batch job submission failed: Socket timed out on send/recv operation"
PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
PROGRAMS = ("mungekey", "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none

# Nothing that needs cgroups or root; process groups, because linuxproc leaves orphans.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none

# Jobs start at once, a request that no node can meet is refused at once, and finished jobs stay in the list.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
DefMemPerCPU=100
EnforcePartLimits=ALL
MinJobAge=86400
KillWait={kill_wait_s}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:fake:2 Feature=max,input State=UNKNOWN
PartitionName=normal Nodes=localhost Default=YES PriorityTier=10 MaxTime=7-0 State=UP
PartitionName=preempt Nodes=localhost PriorityTier=1 GraceTime={grace_s} MaxTime=7-0 State=UP
"""

GPUS = """\
AutoDetect=off
Name=gpu Type=fake File=/dev/null,/dev/zero Flags=nvidia_gpu_env
"""


def missing_programs():
    """The programs of SLURM and munge that this machine lacks."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


def install():
    """Install SLURM and munge by apt-get, as root. Raises CalledProcessError, with apt's words on standard error."""
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    if subprocess.run(command, **quiet, stderr=subprocess.DEVNULL).returncode:
        subprocess.run(["apt-get", "update"], **quiet, check=True)
        subprocess.run(command, **quiet, check=True)


class SlurmCluster:
    """A running SLURM, as a context manager over an empty `folder`.

    env: the environment in which sbatch, squeue and Snakemake find this cluster.
    """

    cpus = 8
    memory_mb = 400_000
    kill_wait_s = 8
    grace_s = 0

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.configuration = self.folder / "slurm.conf"
        programs = [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        self.env |= {"SLURM_CONF": str(self.configuration), "PATH": ":".join(programs), "VIT_PLASTICITY_DEVICE": "cpu"}
        self._daemons = []

    def __enter__(self):
        try:
            self._configure()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.configuration.exists():
            self.end_jobs()
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self._pids(SLURM_CONF=str(self.configuration)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ── what the tests ask and do ──

    def run(self, *command, check=True, cwd=None):
        """Run a command in the environment of the cluster; its standard output, stripped."""
        done = subprocess.run(command, env=self.env, cwd=cwd, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def jobs(self, *states, folder="", rule=""):
        """Jobs that Snakemake submitted, by id, each as `scontrol show job` tells it."""
        lines = self.run("scontrol", "-o", "show", "jobs").splitlines()
        shown = (self._fields(line) for line in lines if line.startswith("JobId"))
        return {
            job["JobId"]: job
            for job in shown
            if job.get("Comment", "").startswith(f"rule_{rule}")
            and job["WorkDir"].startswith(str(folder))
            and (not states or job["JobState"] in states)
        }

    def job(self, job_id):
        """One job, as a dict of what `scontrol show job` tells of it."""
        return self._fields(self.run("scontrol", "-o", "show", "job", job_id))

    def submitted(self):
        """The arguments of every sbatch so far, a line each."""
        file = self.folder / "submitted"
        return file.read_text().splitlines() if file.exists() else []

    def submit(self, script, *options):
        """Submit a shell command as a batch job; its id."""
        return self.run("sbatch", "--parsable", "--output", str(self.folder / "%j.log"), *options, "--wrap", script)

    def cancel(self, job_id):
        """Cancel a job as its user would."""
        self.run("scancel", job_id)

    def end_jobs(self, folder=""):
        """Cancel all jobs that work below a folder, and see them end."""

        def alive():
            lines = self.run("squeue", "-h", "-o", "%i %Z", check=False).splitlines()
            return [line.split(" ", 1)[0] for line in lines if line.split(" ", 1)[-1].startswith(str(folder))]

        for signal_of_the_end in ((), ("--signal=KILL",)):
            if jobs := alive():
                self.run("scancel", *signal_of_the_end, *jobs, check=False)
            with contextlib.suppress(TimeoutError):
                return self.wait_for(lambda: not alive(), "the jobs to end", seconds=2 * self.kill_wait_s)

    def end_time_now(self, job_id):
        """Let the time limit of a running job be reached now."""
        self.run("scontrol", "update", f"jobid={job_id}", "EndTime=now")

    def start_requeued(self):
        """Skip the two minutes that a requeued job is made to wait."""
        for job_id, job in self.jobs("PENDING").items():
            if job["Reason"] == "BeginTime":
                self.run("scontrol", "update", f"jobid={job_id}", "StartTime=now")

    @contextlib.contextmanager
    def partition(self, name):
        """A further partition of that name, within the block."""
        self.run("scontrol", "create", f"partition={name}", "nodes=localhost", "prioritytier=10")
        try:
            yield
        finally:
            self.run("scontrol", "delete", f"partition={name}")

    def be_busy_once(self):
        """Let the next sbatch hear that the controller is too busy to answer."""
        (self.folder / "busy").touch()

    @contextlib.contextmanager
    def drained(self):
        """Within the block no further job starts; those that run go on."""
        self.run("scontrol", "update", "nodename=localhost", "state=drain", "reason=test")
        try:
            yield
        finally:
            self.run("scontrol", "update", "nodename=localhost", "state=resume")

    def preempt(self):
        """Ask for the whole node for a moment, with the priority of the normal partition; the id of the job."""
        whole = ("--gres=gpu:2", f"--cpus-per-task={self.cpus}", f"--mem={self.memory_mb}")
        return self.submit("sleep 1", "--partition=normal", *whole)

    def processes(self, job_id, *words):
        """The processes of a job on the node that have all these words as arguments; id → environment."""
        found = self._pids(SLURM_CONF=str(self.configuration), SLURM_JOB_ID=job_id)
        return {pid: _environment(pid) for pid in found if {*words} <= {*_command_line(pid)}}

    # ── how it is made ──

    def _configure(self):
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True)
        controller_port, node_port = _free_ports(2)
        values = {
            "folder": self.folder,
            "user": getpass.getuser(),
            "controller_port": controller_port,
            "node_port": node_port,
            "cpus": self.cpus,
            "memory_mb": self.memory_mb,
            "kill_wait_s": self.kill_wait_s,
            "grace_s": self.grace_s,
        }
        self.configuration.write_text(CONFIGURATION.format(**values))
        (self.folder / "gres.conf").write_text(GPUS)
        # A job step is started without SLURM_CONF, and so is Snakemake in a job: they would look for /etc/slurm.
        here = f"export SLURM_CONF={self.configuration};"
        for program in ("srun", "squeue", "scontrol", "scancel", "sinfo"):
            self._wrap(program, here)
        answer = f"""rm {self.folder}/busy 2> /dev/null && echo "sbatch: error: {BUSY}" >&2 && exit 1;"""
        self._wrap("sbatch", f"""{here} printf '%s\\n' "$*" >> {self.folder}/submitted; {answer}""")

    def _wrap(self, program, before):
        """Put a program on the PATH that does something before it becomes the real one."""
        wrapper = self.folder / "bin" / program
        wrapper.write_text(f'#!/bin/sh\n{before} exec {shutil.which(program)} "$@"\n')
        wrapper.chmod(0o755)

    def _start(self):
        folder = self.folder
        self.run("mungekey", "--create", "--keyfile", str(folder / "munge.key"))
        names = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        options = [f"--{option}={folder / name}" for option, name in (names | {"seed-file": "munged.seed"}).items()]
        self._daemon("munged", "--foreground", "--force", *options)
        self.wait_for((folder / "munge.socket").exists, "munged to open its socket")
        self._daemon("slurmctld", "-D", "-i", "-f", str(self.configuration))
        self._daemon("slurmd", "-D", "-f", str(self.configuration), "-N", "localhost")
        self.wait_for(lambda: self.run("sinfo", "-h", "-o", "%T", check=False)[:4] == "idle", "the node to be idle")

    def _daemon(self, *command):
        # The kernel ends the daemon if this process dies without a word, and so nothing outlives a killed test run.
        guarded = ["setpriv", "--pdeathsig", "TERM", *command]
        with (self.folder / f"{command[0]}.out").open("w") as out:
            self._daemons.append(subprocess.Popen(guarded, env=self.env, stdout=out, stderr=out, cwd=self.folder))

    def wait_for(self, condition, what, seconds=120, every_s=0.05):
        """The first true value of `condition()`; after `seconds`, TimeoutError with the ends of the daemons' logs."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds} s for {what}\n{self._ends_of_logs()}")
            time.sleep(every_s)
        return value

    def _ends_of_logs(self):
        logs = [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
        return "\n".join(f"── {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)

    def _pids(self, **variables):
        wanted = variables.items()
        pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and int(p.name) != os.getpid()]
        return [pid for pid in pids if wanted <= _environment(pid).items()]

    @staticmethod
    def _fields(line):
        return dict(re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|$)", line))


def _environment(pid):
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
