"""How to measure: interleaved repetitions, ratios with their spread, peak memory of a fresh process; and a result."""

import multiprocessing
import statistics
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """One line of the table.

    value, low, high: median and range over repetitions, in `unit`; None where nothing could be measured.
    goal: in words; empty for what is only stated. met: None where there is no goal, or no measurement.
    """

    what: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = "×"
    goal: str = ""
    met: bool | None = None
    note: str = ""


def at_least(what, least, values, unit="×", note=""):
    return _compared(what, f"at least {least:g} {unit}", values, unit, note, lambda median: median >= least)


def at_most(what, most, values, unit, note=""):
    return _compared(what, f"at most {most:g} {unit}", values, unit, note, lambda median: median <= most)


def stated(what, values, unit, note=""):
    return _compared(what, "", values, unit, note, lambda median: None)


def not_measured(what, goal, why="no GPU"):
    return Result(what, None, goal=goal, note=why)


def _compared(what, goal, values, unit, note, meets):
    values = [float(v) for v in values]
    median = statistics.median(values)
    return Result(what, median, min(values), max(values), unit, goal, meets(median), note)


def interleaved(repetitions, functions, device=None, warm_up=1):
    """Wall seconds of each of `functions` (name → callable), one repetition of all after the other: name → list."""
    seconds = {name: [] for name in functions}
    for repetition in range(-warm_up, repetitions):
        for name, function in functions.items():
            _wait(device)
            started = time.perf_counter()
            function()
            _wait(device)
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(seconds, baseline, ours):
    """How many times faster ours was, per repetition."""
    return [a / b for a, b in zip(seconds[baseline], seconds[ours], strict=True)]


def peak_mb(prepare, *arguments):
    """Working memory in MB, at its peak, of the callable that `prepare(*arguments)` returns, in a process of its own.

    What the process held before it, such as inputs and weights, does not count.
    """
    import torch

    if gpu():
        torch.cuda.empty_cache()  # what earlier measurements freed is still this process's
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(sender, prepare, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _report_peak(sender, prepare, arguments):
    import torch

    function = prepare(*arguments)
    if gpu():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
        before = _status_bytes("VmRSS")
        function()
        peak = _status_bytes("VmHWM") - before
    sender.send(peak / 2**20)


def _status_bytes(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def gpu():
    """The first GPU, or None."""
    import torch  # here, so that subjects without torch stay small: Linux counts a parent's memory to its child

    return torch.device("cuda") if torch.cuda.is_available() else None


def _wait(device):
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
