"""A warm worker: a process that has imported torch and timm once, and forks a child for each local job.

Importing torch and timm costs more CPU seconds than a small run trains. Snakemake starts this worker before its first
job and holds the write end of a pipe that is the worker's standard input: the worker ends when the pipe closes, so it
never outlives Snakemake, however that ends. Jobs reach it through `vit_plasticity.warm`. The worker itself computes
nothing: no thread pool and no CUDA context is started before a fork, and every job runs in a fresh child, which
inherits nothing but imports.
"""

import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from vit_plasticity.runtime import source

STAGES = ("evaluate", "finetune", "landscape", "measure", "plasticity", "pretrain", "probe", "taps")
"""The stages that a worker runs: those that import torch."""


AT_FIRST_USE = ("jsonschema", "torch._dynamo")
"""What other libraries import no sooner than it is used: torch._dynamo when an optimizer is made."""


def preload():
    """Import all that jobs will use, also what is imported at its first use: a job would do it again and again."""
    for module in (*(f"vit_plasticity.{stage}" for stage in STAGES), *AT_FIRST_USE):
        importlib.import_module(module)
    vit = importlib.import_module("vit_plasticity.vit")
    for name in vit.__all__:
        getattr(vit, name)
    vit.families.families()
    source.fingerprint()  # of the code that is loaded now, whatever becomes of its files


def serve(path, descriptor):
    """Fork a monitor for each request to the listening socket `path`, until standard input is closed."""
    listener = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # monitors are not waited for
    warm = False
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            break  # nothing is ever written to the pipe: it was closed
        connection, _ = listener.accept()
        if not warm:
            preload()  # not at the start: a workflow without such jobs pays nothing
            warm = True
        if os.fork() == 0:
            listener.close()
            os._exit(_monitor(connection))
        connection.close()
    Path(path).unlink()
    Path(path).parent.rmdir()


def _monitor(connection):
    """Run one job in a child of this process, pass signals on to it, and hand back its exit status.

    The client sends its standard file descriptors and a file with the request, then one byte per signal; when it is
    killed the connection ends, and so does the job. When Snakemake is killed the pipe ends, and the job is asked to
    stop: what an orphan finished would be made again, while from a checkpoint the next Snakemake goes on.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    message, descriptors, _, _ = socket.recv_fds(connection, 16, 4)
    if not message:
        return 1  # the client was killed before it asked for anything
    with os.fdopen(descriptors.pop(), encoding="utf-8") as file:
        file.seek(0)
        request = json.load(file)
    child = os.fork()
    if child == 0:
        connection.close()
        _run_job(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)

    def forward():
        watched = [connection, sys.stdin]
        with suppress(ProcessLookupError):  # the job may have ended meanwhile
            while connection in watched:
                ready, _, _ = select.select(watched, [], [])
                if sys.stdin in ready:
                    watched.remove(sys.stdin)
                    os.kill(child, signal.SIGTERM)
                if connection in ready:
                    byte = connection.recv(1) or watched.remove(connection)
                    os.kill(child, byte[0] if byte else signal.SIGKILL)

    threading.Thread(target=forward, daemon=True).start()
    _, status = os.waitpid(child, 0)
    # Like a shell: a job that died of signal N ends with status 128 + N.
    code = os.waitstatus_to_exitcode(status)
    with suppress(OSError):  # the client was killed
        connection.sendall(bytes([code if code >= 0 else 128 - code]))
    return 0


def _run_job(request, descriptors):
    """Become the job: its descriptors, folder, environment and arguments; never returns."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Anew: the worker's own know whether they can seek, which differs between a log file and a pipe.
    sys.stdout = open(1, "w", encoding=sys.stdout.encoding, buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    code = 1
    try:
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        stage, *arguments = request["arguments"]
        from vit_plasticity.runtime import cli

        code = cli.run(importlib.import_module(f"vit_plasticity.{stage}").main, arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
