"""Run a stage in the warm worker of this Snakemake where there is one, else right here: ``python -m
vit_plasticity.warm STAGE …``

Same arguments, output, signals and exit status as ``python -m vit_plasticity.STAGE …``. Standard library only: with a
worker, a job costs the start of a bare Python. See `vit_plasticity.runtime.worker`.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

VARIABLE = "VIT_PLASTICITY_WORKER"
"""Environment variable with a JSON object: socket, the process that the worker belongs to, and its Python."""


def use_this_checkout(base):
    """Let the jobs of this Snakemake run the package of the checkout `base` with the Python that runs Snakemake.

    An activated conda environment still puts its own Python first.
    """
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["PYTHONPATH"] = str(Path(base, "src"))


def start_worker():
    """Start a worker that lives as long as this process, and tell it to later jobs through the environment.

    Does nothing where forking a warm process is not safe or not possible (anything but Linux).
    """
    if sys.platform != "linux":
        return
    path = Path(tempfile.mkdtemp(prefix="vit-plasticity-")) / "socket"
    # In a session of its own, so that Ctrl-C reaches the jobs' clients first and they end their jobs in order.
    worker = subprocess.Popen(
        [sys.executable, "-m", "vit_plasticity.runtime.worker", str(path)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    start_worker.process = worker  # keeps the write end of the pipe open, to the end of this process
    os.environ[VARIABLE] = json.dumps({"socket": str(path), "owner": os.getpid(), "python": sys.prefix})


def main(arguments):
    """Run ``STAGE …`` and return its exit status."""
    connection = _connect()
    if connection is None:
        sys.argv = arguments
        runpy.run_module(f"vit_plasticity.{arguments[0]}", run_name="__main__", alter_sys=True)
        return 0
    request = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: connection.sendall(bytes([number])))
    # In a file without a name, since an environment may be longer than a message.
    with os.fdopen(os.memfd_create("request"), "w") as file:
        json.dump(request, file)
        file.flush()
        socket.send_fds(connection, [b"job"], [0, 1, 2, file.fileno()])
    status = connection.recv(1)
    if not status:
        print("vit_plasticity.warm: the worker ended before the job did", file=sys.stderr)
        return 1
    return status[0]


def _connect():
    """A connection to the worker, or None where there is none for this process."""
    try:
        worker = json.loads(os.environ[VARIABLE])
        # A job on a cluster inherits the variable, yet it must run where it was scheduled, not in the submitter's
        # worker.
        if worker["owner"] not in _ancestors() or worker["python"] != sys.prefix:
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(worker["socket"])
        return connection
    except (KeyError, TypeError, ValueError, OSError):
        return None


def _ancestors():
    """Process ids of this process's parents, as Linux tells them."""
    pid = os.getpid()
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield pid


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
