"""The client of the warm worker: start it, and hand jobs over to it. Standard library only."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "VIT_PLASTICITY_WORKER"
"""Environment variable with a JSON object: socket, the process that the worker belongs to, and its Python."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Environment of the worker, with which NumPy, SciPy and pyarrow start no thread when they are imported: to fork is
safe from a single thread alone. A job then has as many as it was given."""


def start_worker():
    """Start a worker that lives as long as this process, and tell it to later jobs through the environment.

    Does nothing where forking a warm process is not safe or not possible (anything but Linux).
    """
    if sys.platform != "linux":
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path = Path(tempfile.mkdtemp(prefix="vit-plasticity-")) / "socket"
        with socket_address(path) as address:  # here, so that the first job finds it however soon it comes
            listener.bind(address)
        listener.listen(128)
    except OSError as error:
        print(f"no warm worker, so jobs start more slowly: no temporary folder ({error})", file=sys.stderr)
        return
    # In a session of its own, so that Ctrl-C reaches the jobs' clients first and they end their jobs in order.
    worker = subprocess.Popen(
        [sys.executable, "-m", "vit_plasticity.runtime.worker", str(path), str(listener.fileno())],
        stdin=subprocess.PIPE,
        start_new_session=True,
        pass_fds=[listener.fileno()],
        env=os.environ | ONE_THREAD,
    )
    listener.close()
    start_worker.process = worker  # keeps the write end of the pipe open, to the end of this process
    os.environ[VARIABLE] = json.dumps({"socket": str(path), "owner": os.getpid(), "python": sys.prefix})


def run(arguments):
    """Run ``STAGE …`` in the worker and return its exit status; None where there is no worker for this process."""
    connection = _connect()
    if connection is None:
        return None
    request = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: connection.sendall(bytes([number])))
    # In a file without a name, since an environment may be longer than a message.
    with os.fdopen(os.memfd_create("request"), "w", encoding="utf-8") as file:
        json.dump(request, file)
        file.flush()
        socket.send_fds(connection, [b"job"], [0, 1, 2, file.fileno()])
    status = connection.recv(1)
    if not status:
        print("vit_plasticity.warm: the worker ended before the job did", file=sys.stderr)
        return 1
    return status[0]


@contextmanager
def socket_address(path):
    """The address of the socket `path`, short however long the path is: Linux allows 107 bytes, a TMPDIR is longer."""
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{Path(path).name}"
    finally:
        os.close(folder)


def _connect():
    """A connection to the worker, or None where there is none for this process."""
    try:
        worker = json.loads(os.environ[VARIABLE])
        # A job on a cluster inherits the variable, yet it must run where it was scheduled, not in the submitter's
        # worker.
        if worker["owner"] not in _ancestors() or worker["python"] != sys.prefix:
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with socket_address(worker["socket"]) as address:
            connection.connect(address)
        return connection
    except (KeyError, TypeError, ValueError, OSError):
        return None


def _ancestors():
    """Process ids of this process's parents, as Linux tells them."""
    pid = os.getpid()
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[1])
        yield pid
