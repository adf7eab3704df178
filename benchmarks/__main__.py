"""Measure subjects, print their table, and write RESULTS.md: ``python -m benchmarks [SUBJECT …]``."""

import argparse
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time

from benchmarks import report
from vit_plasticity.runtime.files import atomic

SUBJECTS = ("plasticity", "predictors", "data", "step", "jobs", "study", "dag", "demo")
KEPT = report.FOLDER / "results.json"
LIMIT_S = 1800
"""Seconds after which a subject counts as failed, so that nobody need watch."""


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"among {', '.join(SUBJECTS)}; all by default")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if unknown := set(args.subjects) - set(SUBJECTS):
        parser.error(f"unknown subject {min(unknown)!r}; choose from {', '.join(SUBJECTS)}")
    if args.here:
        results = importlib.import_module(f"benchmarks.{args.subjects[0]}").measure()
        print(json.dumps([dataclasses.asdict(r) for r in results]))
        return 0
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    failed = []
    for name in args.subjects or SUBJECTS:
        started, about = time.perf_counter(), report.about()
        results = in_own_process(name)
        print(f"\n{name}, {time.perf_counter() - started:.0f} s\n")
        if results is None:
            failed.append(name)
            continue
        print(report.text(results), flush=True)
        kept[name] = {"about": about, "results": results}
        report.plot(name, results)
        kept = {subject: kept[subject] for subject in SUBJECTS if subject in kept}
        for path, content in (
            (KEPT, json.dumps(kept, indent=1)),
            (report.FOLDER / "RESULTS.md", report.markdown(kept)),
        ):
            with atomic(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
    goals = [r for subject in kept.values() for r in subject["results"] if r["goal"]]
    print(f"\nAll goals, with what was measured before\n\n{report.text(goals)}")
    if failed:
        print(f"\nfailed, and left as they were: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def in_own_process(name):
    """The results of a subject, as dicts, from a process of its own; None where it failed or took too long."""
    command = [sys.executable, "-m", "benchmarks", "--here", name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        print(f"{name}: not done after {LIMIT_S} s", file=sys.stderr)
        return None
    return json.loads(output.splitlines()[-1]) if process.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
