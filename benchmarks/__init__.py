"""Ratios against a plain baseline, measured side by side: ``python -m benchmarks [SUBJECT …]``.

Every subject is one small module with a function `measure()` that returns a list of `harness.Result`; the baseline is
`plain`. Results are kept in results.json, so that subjects can be measured one at a time, and written to RESULTS.md and
plots/. No result fails: a missed goal is shown as missed.
"""
