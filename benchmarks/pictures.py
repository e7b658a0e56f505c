"""Draws the README's pictures of what was measured: ``python -m benchmarks.pictures``.

Needs matplotlib.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import placement
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
    handles = [
        mpl.patches.Patch(color=colour, label=label)
        for colour, label in zip(_COLOURS, ways, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(
        f"{body['machine']['device']}, Llama of 1.1 billion weights, LoRA r=16 (configs x batch x tokens)",
        fontsize=9,
    )
    figure.savefig(_DOCS / "joint-steps.png", dpi=150)


def draw_grid() -> None:
    """Tokens a second by the tokens that all configs have in a step."""
    body = json.loads((RESULTS / "fused-grid-cuda.json").read_text())
    series: dict[str, list[tuple[int, float]]] = {}
    for one in body["figures"]:
        shape, _, what = one["what"].partition(": ")
        configs, batch, length = map(int, shape.split(" x "))
        if what == "joint steps, tokens a second" and configs > 1:
            series.setdefault(f"{configs} configs", []).append(
                (configs * batch * length, one["value"])
            )
        elif what == "plain TRL, tokens a second":
            series.setdefault("plain TRL, a config at a time", []).append(
                (batch * length, one["value"])
            )
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes: Any = figure.subplots()
    ordered = sorted(series, key=lambda name: (name[0].isdigit(), len(name), name))
    for name, colour in zip(
        ordered, [_COLOURS[0], "#009e73", *_COLOURS[2:], "#d55e00"], strict=True
    ):
        axes.plot(
            *zip(*sorted(series[name]), strict=True), "o", color=colour, label=name, markersize=5
        )
    axes.set_xscale("log", base=2)
    ticks = [2**power for power in range(8, 19, 2)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0)
    axes.set_xlabel("tokens of a step, of all configs together")
    axes.set_ylabel("tokens a second")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.set_title(
        f"{body['machine']['device']}, Llama of 1.1 billion weights, LoRA r=16, not compiled; batches of 1 to 8, "
        "256 to 1024 tokens",
        fontsize=9,
    )
    figure.savefig(_DOCS / "tokens-a-second.png", dpi=150)


if __name__ == "__main__":
    mpl.use("agg")
    draw_speed()
    draw_grid()
    placement.draw(_DOCS / "placement.png")
