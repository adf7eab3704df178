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


def interleaved(repetitions, functions, device=None, warm_up=1, threads=None):
    """Seconds of each of `functions` (name → callable), one repetition of all after the other: name → list.

    With one thread they are CPU seconds, which other work on the machine does not lengthen; else wall seconds.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds = {name: [] for name in functions}
    for repetition in range(-warm_up, repetitions):
        for name, function in functions.items():
            _wait(device)
            started = clock()
            function()
            _wait(device)
            if repetition >= 0:
                seconds[name].append(clock() - started)
    return seconds


PRODUCTS, PRODUCT_SIDE = 4, 2048


def matrix_product(device="cpu"):
    """A callable that computes PRODUCTS float32 products of square matrices, by the faster of the kernels there are.

    It is what the machine can do at most, and to be measured beside what is compared with it.
    """
    import torch

    from vit_plasticity.vit.kernels import linear

    a, b = torch.randn(2, PRODUCT_SIDE, PRODUCT_SIDE, device=device)
    functions = [lambda: linear(a, b), lambda: torch.nn.functional.linear(a, b)]
    seconds = interleaved(3, dict(enumerate(functions)), torch.device(device))
    faster = functions[min(seconds, key=lambda index: min(seconds[index]))]
    return lambda: [faster() for _ in range(PRODUCTS)]


def share_of_peak(operations, seconds, seconds_of_products):
    """Per cent of the rate of `matrix_product` that so many operations reached, repetition by repetition; its best
    repetition is the peak."""
    peak = PRODUCTS * 2 * PRODUCT_SIDE**3 / min(seconds_of_products)
    return [100 * operations / s / peak for s in seconds]


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
