"""Runs all benchmarks, prints a table each and writes results/*.json.

``python -m benchmarks [NAME...]``.
"""

from __future__ import annotations

import importlib
import sys

import datasets

from benchmarks.report import Report

#: By name: the module and its function. Only what is asked for is imported, and only that has to be
#: installed.
BENCHMARKS = {
    "exact": ("exact", "measure"),
    "real": ("real", "measure"),
    "grpo": ("grpo", "measure"),
    "fleet": ("fleet", "measure"),
    "placement": ("placement", "measure"),
    "fused-speed": ("fused", "measure_speed"),
    "fused-remainder": ("fused", "measure_remainder"),
    "fused-auto": ("fused", "measure_auto"),
    "fused-memory": ("fused", "measure_memory"),
    "fused-exactness": ("fused_exactness", "measure_exactness"),
    "fused-grid": ("fused", "measure_grid"),
    "winner": ("winner", "measure"),
    "ranking": ("ranking", "measure"),
    "halving": ("automation", "measure_halving"),
    "optuna": ("automation", "measure_optuna"),
    "schedules": ("automation", "measure_schedules"),
    "handover": ("parked", "measure_handover"),
    "start": ("parked", "measure_start"),
    "memory": ("parked", "measure_memory"),
    "methods": ("methods", "measure_methods"),
    "sharing": ("methods", "measure_sharing"),
    "quantised": ("methods", "measure_quantised"),
    "panel": ("panel", "measure_updates"),
    "panel-browser": ("panel", "measure_browser"),
    "sidebar": ("panel", "measure_sidebar"),
    "panel-overhead": ("panel", "measure_overhead"),
}


def main() -> None:
    """Measure what was named, or everything."""
    datasets.disable_progress_bars()
    for name in sys.argv[1:] or BENCHMARKS:
        module, function = BENCHMARKS[name]
        report = Report(name)
        getattr(importlib.import_module(f"benchmarks.{module}"), function)(report)
        report.finish()


if __name__ == "__main__":
    main()
