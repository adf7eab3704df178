"""What the command lines of all stages share: arguments, and errors without tracebacks."""

import argparse
import errno
import os
import re
import signal
import sys

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What a disk refuses, and no defect: the user makes room or mends a permission."""


class InputError(Exception):
    """Input that cannot be used. The message says what was got, what is allowed, and what to do next."""


class MachineError(Exception):
    """What another machine might be able to do: a retry elsewhere makes sense. The message says what is amiss."""


def parser(stage, description):
    """An argument parser for one stage; `description` is the stage's docstring, whose first line becomes its
    summary."""
    return argparse.ArgumentParser(
        prog=f"python -m vit_plasticity.{stage}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_table_arguments(parser, what, *, many=False):
    """Add what every stage that writes a table, or many, takes: --params, --study, --rev and --output."""
    parser.add_argument(
        "--params",
        default="{}",
        metavar="JSON",
        help="the stage's settings as one JSON object; what is left out keeps its default",
    )
    parser.add_argument(
        "--study", default="default", help="name of the study, recorded in the table (default: %(default)s)"
    )
    parser.add_argument(
        "--rev",
        type=int,
        default=1,
        help="revision of the stage's numbers, recorded in the table (default: %(default)s)",
    )
    several = {"nargs": "+", "metavar": "P"} if many else {}
    parser.add_argument("--output", required=True, help=f"Parquet file to write: {what}", **several)


def available_cpus():
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_compute_arguments(parser):
    """Add what every stage that computes with torch takes: --device and --threads."""
    parser.add_argument(
        "--device",
        default=os.environ.get("VIT_PLASTICITY_DEVICE") or "auto",
        help="auto, cpu, cuda or cuda:N (default: $VIT_PLASTICITY_DEVICE, or the first GPU, or the CPU)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")


def run(main, argv=None):
    """Run a stage's `main` and return its exit status: 0 done, 2 input refused, 1 the machine failed (a full disk,
    no GPU), 141 the reader of its output went away.

    Any other exception is a defect and keeps its traceback.
    """
    stage = getattr(sys.modules[main.__module__].__spec__, "name", main.__module__)
    if hasattr(sys.stdout, "reconfigure"):  # a terminal of another encoding shows \xe9 for é, and nothing fails
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main(argv) or 0
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"{stage}: error: {error}", file=sys.stderr)
        return 2
    except MachineError as error:
        print(f"{stage}: failed: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # who read the output, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it ends
        return 128 + signal.SIGPIPE
    except Exception as error:
        failure = _os_error(error)
        if failure.errno not in NO_ROOM:
            raise
        where = f" at {failure.filename}" if failure.filename else ""
        print(
            f"{stage}: failed: {failure.strerror}{where}. Nothing was left half-written; "
            "make room or mend the permission, and run the same command again.",
            file=sys.stderr,
        )
        return 1


def _os_error(error):
    """An error as an OSError, also where a library in Rust, such as safetensors, hides one in an error of its own."""
    if isinstance(error, OSError):
        return error
    hidden = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(hidden[1]), os.strerror(int(hidden[1]))) if hidden else OSError()
