"""The warm worker: a job in it behaves as a process of its own would, whatever happens to either side."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
from kills import jobs_of
from one_cell import Cell, wait_for
from processes import stage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a warm worker on Linux only")


def test_cold_cell_that_was_killed_equals_a_warm_one_that_was_not(smoke, undisturbed, tmp_path):
    """As on a cluster, where no worker is."""
    cell = Cell(tmp_path, smoke)
    command = [sys.executable, "-m", "vit_plasticity.finetune", *cell.arguments]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: process.poll() is not None or any(cell.work.glob("*.checkpoint")))
    process.kill()
    process.communicate()
    assert "going on from step" in cell.run(warm=False).stdout
    assert cell.numbers() == undisturbed


def test_killed_client_takes_its_job_with_it(cell):
    process = cell.start()
    wait_for(lambda: process.poll() is not None or any(cell.work.glob("*.checkpoint")))
    (job,) = jobs_of(cell.output.parent)
    assert job.freeze()
    process.kill()
    process.wait()
    try:
        wait_for(lambda: not jobs_of(cell.output.parent), 20)
    finally:
        with suppress(ProcessLookupError):
            os.kill(job.pid, signal.SIGKILL)
    assert not cell.output.exists()


def test_the_worker_forks_from_a_single_thread(undisturbed, warm_worker):
    """From several, a child may wait for ever for a lock; Python says so from 3.12 on, in Snakemake's output."""
    assert len([*Path(f"/proc/{warm_worker.pid}/task").iterdir()]) == 1


def test_a_job_has_no_library_left_to_import(smoke, tmp_path):
    """What the worker did not import before it forked, every job would import for itself."""
    code = """
        import sys
        from vit_plasticity.runtime import worker

        worker.preload()
        before = set(sys.modules)
        sys.modules["vit_plasticity.finetune"].main(sys.argv[1:])
        print("new:", *(set(sys.modules) - before))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *Cell(tmp_path, smoke).arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    new = re.search("^new:(.*)$", said, re.MULTILINE)[1].split()
    assert not [name for name in new if not name.startswith("pyarrow.")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_job_and_its_status_comes_back(cell, number):
    process = cell.start()
    wait_for(lambda: process.poll() is not None or any(cell.work.glob("*.checkpoint")))
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number
    assert f"stopped by {signal.Signals(number).name} at step" in said


def test_job_that_dies_of_a_signal_says_so(cell):
    process = cell.start()
    wait_for(lambda: process.poll() is not None or any(cell.work.glob("*.checkpoint")))
    (job,) = jobs_of(cell.output.parent)
    os.kill(job.pid, signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "usage: python -m vit_plasticity.finetune"),
        (["--no-such-option"], 2, "unrecognized arguments: --no-such-option"),
        (["--params", "{"], 2, "vit_plasticity.finetune: error: --params is not JSON"),
        (["--model", "/nowhere"], 2, "/nowhere has no readable provenance.json"),
    ],
    ids=["help", "unknown option", "refused input", "missing model"],
)
def test_exit_status_and_words_are_those_of_the_stage(cell, arguments, status, words):
    done = stage("finetune", *cell.arguments, *arguments, cwd=cell.folder, check=False)
    assert done.returncode == status
    assert words in done.stdout
    assert "Traceback" not in done.stdout


def test_defect_keeps_its_traceback(cell):
    cell.work.parent.mkdir(parents=True, exist_ok=True)
    cell.work.write_text("a file where a folder is due")
    done = cell.run(check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stdout


def test_large_environment_is_passed_on(cell, undisturbed):
    """A login shell on a cluster may export functions by the hundred."""
    many = {f"VARIABLE_{i}": "x" * 10_000 for i in range(40)}
    cell.run(env={**os.environ, **many})
    assert cell.numbers() == undisturbed


PARENT = """
    import os, subprocess, sys, time
    from vit_plasticity.runtime import client
    client.start_worker()
    print(client.start_worker.process.pid, flush=True)
    subprocess.Popen([sys.executable, "-m", "vit_plasticity.warm", "finetune", *sys.argv[1:]])
    time.sleep(600)
"""


def pending(pid, number):
    """Whether a signal was sent to a process that stands still."""
    (waiting,) = re.findall(r"^ShdPnd:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(waiting, 16) >> (number - 1) & 1)


def test_jobs_stop_in_order_when_the_owner_of_the_worker_is_killed(smoke, undisturbed, tmp_path):
    """As when Snakemake is killed: its worker ends, and each cell writes a checkpoint before it does."""
    cell = Cell(tmp_path, smoke)
    with (tmp_path / "said").open("w") as said:
        parent = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PARENT), *cell.arguments],
            cwd=tmp_path, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
    wait_for(lambda: parent.poll() is not None or any(cell.work.glob("*.checkpoint")))
    worker = int((tmp_path / "said").read_text().splitlines()[0])
    (job,) = jobs_of(cell.output.parent)
    assert job.freeze()  # or it might end before the signal comes
    parent.kill()
    parent.wait()
    wait_for(lambda: pending(job.pid, signal.SIGTERM))
    os.kill(job.pid, signal.SIGCONT)
    wait_for(lambda: not jobs_of(cell.output.parent))
    wait_for(lambda: not os.path.exists(f"/proc/{worker}"))  # noqa: PTH110
    assert "stopped by SIGTERM at step" in (tmp_path / "said").read_text()
    assert "Traceback" not in (tmp_path / "said").read_text()
    assert "going on from step" in cell.run().stdout
    assert cell.numbers() == undisturbed


def test_worker_of_another_process_is_not_used(tmp_path):
    """A job on a cluster inherits the variable of who submitted it, and must run where it was scheduled."""
    told = json.loads(os.environ["VIT_PLASTICITY_WORKER"]) | {"owner": 999_999_999}
    run_outside_the_worker(tmp_path, json.dumps(told))


@pytest.mark.parametrize("value", ["", "no JSON", "{}", "[]", '{"socket": 1, "owner": 1, "python": ""}'])
def test_nonsense_in_the_variable_means_no_worker(tmp_path, value):
    run_outside_the_worker(tmp_path, value)


def run_outside_the_worker(folder, value):
    """With this value of its variable, a stage that the worker does not know runs, so it runs elsewhere."""
    done = stage("fetch", "--help", cwd=folder, env=os.environ | {"VIT_PLASTICITY_WORKER": value})
    assert "usage: python -m vit_plasticity.fetch" in done.stdout


def test_client_that_is_killed_before_it_asks_leaves_no_trace(warm_worker, cell):
    """The worker goes on to serve others."""
    told = json.loads(os.environ["VIT_PLASTICITY_WORKER"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(told["socket"])
    cell.run()
    assert warm_worker.poll() is None
