"""One table on the screen, one JSON file beside it, with what is needed to read the figures."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from pathlib import Path

import psutil
import torch

from rf_notebook.core.versions import versions

RESULTS = Path(__file__).parent / "results"


class Report:
    """Collects rows of one benchmark."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[tuple[str, float | str, str]] = []
        self.conditions: dict[str, object] = {}
        print(f"\n== {name}", flush=True)

    def row(self, what: str, value: float | str, unit: str = "") -> None:
        """One figure."""
        self.rows.append((what, value, unit))
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"  {what:<72} {shown:>10} {unit}", flush=True)

    def finish(self) -> None:
        """Write the file, if there is anything in it."""
        if not self.rows:
            return
        cuda = torch.cuda.is_available()
        body = {
            "benchmark": self.name,
            "figures": [
                {"what": what, "value": value, "unit": unit} for what, value, unit in self.rows
            ],
            "conditions": self.conditions,
            "machine": {
                "device": torch.cuda.get_device_name(0) if cuda else "CPU",
                "cores": psutil.cpu_count(logical=True),
                "memory_gib": round(psutil.virtual_memory().total / 2**30),
                "python": platform.python_version(),
                "torch_threads": torch.get_num_threads(),
            },
            "versions": versions(),
            "commit": _commit(),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
        suffix = "cuda" if cuda else "cpu"
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.name}-{suffix}.json").write_text(json.dumps(body, indent=1) + "\n")


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
