"""Are joint steps as fast on equal rows as they were before rows of uneven length were packed?

``RF_BENCH_OLD`` is a checkout of commit 663322b. Both versions are timed in processes of their own,
one after the other, on the same device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.common import ON_GPU
from benchmarks.report import Report

#: Configs, batch, tokens of a row, and by how much joint steps are to be faster than they were.
_SHAPES = (
    [(8, 1, 512, 1.4), (8, 4, 512, 1.1), (8, 8, 512, 1.05), (32, 1, 256, 1.5)]
    if ON_GPU
    else [(4, 1, 64, 1.0)]
)
_STEPS, _WARM_UP = (20, 8) if ON_GPU else (6, 2)
#: Uses only what both versions have.
_CHILD = f"""
import json, sys, warnings
warnings.simplefilter("ignore")
import datasets
datasets.disable_progress_bars()
from benchmarks.common import llama
from contextlib import nullcontext
from benchmarks.fused import CompiledLayers, Shape, joint_seconds, rows_of
try:  # as in a notebook in which no other cell is at work
    from rf_notebook.core.foreground import only_waiting
except ImportError:
    only_waiting = nullcontext
base, found = llama(), []
for configs, batch, length, compiled in json.loads(sys.argv[1]):
    CompiledLayers.always_after = 2 if compiled else 10**9
    shape = Shape(configs, batch, length)
    with only_waiting():
        seconds = joint_seconds(base, rows_of(length), shape, steps={_STEPS}, warm_up={_WARM_UP})
    found.append(seconds)
print("FOUND", json.dumps(found))
"""


def measure(report: Report, *, is_compiled: bool) -> None:
    """Milliseconds of a step of all configs, of both versions."""
    old = os.environ.get("RF_BENCH_OLD")
    if old is None:
        report.row("not measured", "RF_BENCH_OLD is to be a checkout of 663322b")
        return
    asked = [(configs, batch, length, is_compiled) for configs, batch, length, _ in _SHAPES]
    before = _timed(Path(old), asked)
    now = _timed(Path(__file__).parents[1], asked)
    for (*shape, aim), was, seconds in zip(_SHAPES, before, now, strict=True):
        name = " x ".join(map(str, shape)) + (", compiled" if is_compiled else "")
        report.row(f"{name}: 663322b", was * 1000, "ms a step of all")
        report.row(f"{name}: now", seconds * 1000, "ms a step of all")
        report.row(f"{name}: faster by", was / seconds, f"x (must 1, aim {aim})")


def _timed(checkout: Path, asked: list[tuple[int, int, int, bool]]) -> list[float]:
    path = os.pathsep.join([str(checkout), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(asked)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("FOUND "):
            found: list[float] = json.loads(line.removeprefix("FOUND "))
            return found
    raise RuntimeError(f"{checkout}: {done.stderr[-2000:]}")
