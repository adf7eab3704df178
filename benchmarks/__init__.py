"""Ratios against a plain baseline, measured side by side: ``python -m benchmarks [SUBJECT …]``.

Every subject is one small module with a function `measure()` that returns a list of `harness.Result`; the baseline is
`plain`. Results are kept in results.json, so that subjects can be measured one at a time, and written to RESULTS.md and
plots/. No result fails: a missed goal is shown as missed.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PATHS = [str(ROOT / name) for name in ("src", "tests/support", ".")]
# What is measured is the checkout that this lies in, also by the processes that are started.
sys.path[:0] = _PATHS
os.environ["PYTHONPATH"] = os.pathsep.join([*_PATHS, *filter(None, [os.environ.get("PYTHONPATH")])])
