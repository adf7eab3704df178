"""The table of all results, as text and as RESULTS.md, and the plots."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parent
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "pyarrow", "snakemake")
SIGNS = {True: "met", False: "missed", None: ""}


def about():
    """The machine, the versions and the time: what a measurement is worth nothing without."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_cpu()}, {os.cpu_count()} cores, {_memory_gb():.0f} GB",
        "gpu": _gpu(),
        "load when it began": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        "commit": _commit(),
    }


def number(value, unit):
    if value is None:
        return "not measured"
    digits = f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{digits} {unit}".strip()


def row(result):
    """What, goal, measured, range, met, note: the cells of one line."""
    measured = number(result["value"], result["unit"])
    spread = ""
    if result["low"] is not None and result["low"] != result["high"]:
        spread = f"{number(result['low'], '')} … {number(result['high'], '')}"
    return [result["what"], result["goal"], measured, spread, SIGNS[result["met"]], result["note"]]


HEAD = ["What", "Goal", "Median", "Range", "", "Note"]


def text(results):
    rows = [HEAD, *map(row, results)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(HEAD))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


def markdown(kept):
    """RESULTS.md from all that was measured: subject → {"about", "results"}."""
    lines = ["# Benchmarks", ""]
    lines += [
        "Written by `make bench` (one subject: `python -m benchmarks NAME`); what each line measures stands in the"
    ]
    lines += ["module of its subject. The baseline is `benchmarks/plain.py`, run in the same process, repetition by"]
    lines += ["repetition; × is how many times faster, or smaller, ours is. Median and range are over repetitions.", ""]
    goals = [r for subject in kept.values() for r in subject["results"] if r["goal"]]
    lines += ["## Goals", "", *_table(goals)]
    for name, subject in kept.items():
        lines += ["", f"## {name}", "", *_table(subject["results"]), ""]
        if (FOLDER / "plots" / f"{name}.png").exists():
            lines += [f"![{name}](plots/{name}.png)", ""]
        lines += [f"{key}: {value}  " for key, value in subject["about"].items()]
    return "\n".join(lines) + "\n"


def plot(name, results):
    """The plot of a subject: its growth where it has sizes, else bars of its ratios or shares."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(layout="constrained")
    drawn = _growth(axes, results) or _bars(figure, axes, results)
    axes.spines[["top", "right"]].set_visible(False)
    if drawn:
        (FOLDER / "plots").mkdir(exist_ok=True)
        figure.savefig(FOLDER / "plots" / f"{name}.png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _growth(axes, results):
    """CPU seconds over cells, from results named such as "1,000 cells, dry run, CPU time"; False where none is."""
    from matplotlib import ticker

    lines = {}
    for result in results:
        match = re.fullmatch(r"([\d,]+) cells, (.+), CPU time", result["what"])
        if match and not result["goal"]:
            lines.setdefault(match[2], []).append((int(match[1].replace(",", "")), result["value"]))
    for label, points in lines.items():
        axes.loglog(*zip(*points, strict=True), "o--" if label.endswith("bare") else "o-", label=label)
    if lines:
        cells = [point[0] for point in next(iter(lines.values()))]
        axes.set(xlabel="cells", ylabel="CPU seconds", xticks=cells, xticklabels=[f"{n:,}" for n in cells])
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=20))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(frameon=False)
    return bool(lines)


def _bars(figure, axes, results):
    unit = "×" if any(r["unit"] == "×" and r["value"] for r in results) else "%"
    bars = [r for r in results if r["unit"] == unit and r["value"] is not None]
    figure.set_size_inches(12, 0.9 + 0.3 * len(bars))
    for position, bar in enumerate(reversed(bars)):
        axes.barh(position, bar["value"], color={True: "#4477aa", False: "#cc6677", None: "#bbbbbb"}[bar["met"]])
        axes.plot([bar["low"], bar["high"]], [position, position], color="black", linewidth=1)
        if bar["goal"]:
            axes.plot(float(bar["goal"].split()[2]), position, marker="|", color="black", markersize=12)
    axes.set_yticks(range(len(bars)), [bar["what"] for bar in reversed(bars)], fontsize=8)
    axes.set_xlabel({"×": "times the plain baseline (black mark: goal)", "%": "% (black mark: goal)"}[unit])
    return bool(bars)


def _table(results):
    yield f"| {' | '.join(HEAD)} |"
    yield "|---|---|---|---|---|---|"
    yield from (f"| {' | '.join(row(r))} |" for r in results)


def _cpu():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gb():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _gpu():
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or "none"
    except (OSError, subprocess.CalledProcessError):
        return "none"


def _commit():
    """The commit that is measured, "-dirty" if anything but the results of benchmarks has changed since."""

    def git(*arguments):
        return subprocess.run(["git", "-C", str(FOLDER), *arguments], capture_output=True, text=True).stdout.strip()

    written = (":/", ":!RESULTS.md", ":!results.json", ":!plots")
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", *written)
    return (git("describe", "--always") or "unknown") + "-dirty" * bool(dirty)
