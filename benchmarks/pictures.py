"""Draws the README's pictures of what was measured: ``python -m benchmarks.pictures``. Needs matplotlib."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.report import RESULTS

_DOCS = Path(__file__).parents[1] / "docs"
_COLOURS = ["#7f8c8d", "#b8c0c2", "#56b4e9", "#0072b2"]


def draw_speed() -> None:
    """Milliseconds for one step of all configs, in four ways."""
    body = json.loads((RESULTS / "fused-speed-cuda.json").read_text())
    figures = {one["what"]: one["value"] for one in body["figures"]}
    ways = {
        "plain TRL, one after another": "plain TRL, one config after another",
        "the same, no gradient checkpointing": "the same without gradient checkpointing",
        "joint steps": "joint steps",
        "joint steps, compiled": "joint steps, compiled",
    }
    shapes = list(dict.fromkeys(what.partition(":")[0] for what in figures))
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes: Any = figure.subplots(1, len(shapes))
    for place, shape in zip(axes, shapes, strict=True):
        values = [figures[f"{shape}: {what}"] for what in ways.values()]
        bars = place.bar(range(len(ways)), values, color=_COLOURS)
        place.bar_label(bars, [f"{value:.0f}" for value in values], fontsize=8)
        place.set_title(f"{shape} tokens", fontsize=9)
        place.set_xticks([])
        place.spines[["top", "right"]].set_visible(False)
        place.margins(y=0.12)
    axes[0].set_ylabel("ms for a step of all configs")
    handles = [mpl.patches.Patch(color=colour, label=label) for colour, label in zip(_COLOURS, ways, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(
        f"{body['machine']['device']}, Llama of 1.1 billion weights, LoRA r=16 (configs x batch x tokens)", fontsize=9
    )
    figure.savefig(_DOCS / "joint-steps.png", dpi=150)


if __name__ == "__main__":
    mpl.use("agg")
    draw_speed()
