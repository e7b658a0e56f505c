"""What is said of an experiment on disk: when it was written, how large it is, what was best."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from rf_notebook.core.metrics import cost_of, direction, headline
from rf_notebook.core.run import RunState
from rf_notebook.record.files import RECORD
from rf_notebook.record.record import record_digest
from rf_notebook.store.disposal import bytes_of
from rf_notebook.store.plain_files import read_plain
from rf_notebook.views.words import number, shortened, size

_MOST_BYTES = 32 << 20
_OUT = (RunState.FAILED, RunState.DIVERGED, RunState.DELETED)


def recorded_words(folder: Path, written_at: float) -> str:
    """Such as "28 Nov 2026, 22:10 · 34 MB · best eval_loss 1.23, run 3".

    Args:
        folder: The experiment's.
        written_at: Seconds since 1970.
    """
    at = time.strftime("%d %b %Y, %H:%M", time.localtime(written_at))
    return " · ".join(filter(None, [at, size(bytes_of(folder)), _best(folder)]))


def _best(folder: Path) -> str:
    """From the record that an experiment's end writes; "" where there is none that can be read."""
    try:
        record = json.loads(read_plain(folder / RECORD, _MOST_BYTES))
        if record["digest"] != record_digest(record):
            return ""
        methods = {str(config["method"]) for config in record["spec"]["configs"]}
        scored = [
            (cost, metric, value, result["run"])
            for result in record["results"]
            if result["state"] not in _OUT
            for metric, value in [_judged(methods, result["metrics"])]
            if math.isfinite(cost := cost_of(value, direction(metric)))
        ]
        _, metric, value, run = min(scored)
        return f"best {shortened(metric, 60)} {number(value)}, run {int(run)}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""


def _judged(methods: set[str], metrics: dict[str, Any]) -> tuple[str, float]:
    metric = headline(methods, metrics)
    value = metrics.get(metric)
    return metric, float(value) if isinstance(value, int | float) else math.nan
