"""Which colour is a run's?

The same for its whole life, told apart by colour-blind eyes, on light and dark ground.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Okabe and Ito's colours without black and yellow, and two of like lightness. Source:
#: jfly.uni-koeln.de/color.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c7ae6", "#7f8c8d")
#: From the ninth run on, colours come again with another stroke: lengths of lines and of the gaps
#: between them, in pixels. 64 runs differ in one or the other.
DASHES: tuple[tuple[int, ...], ...] = (
    (),
    (8, 3),
    (2, 3),
    (8, 3, 2, 3),
    (16, 4),
    (16, 4, 2, 4),
    (8, 3, 2, 3, 2, 3),
    (4, 8),
)


#: Those in use: a person may have chosen others in JupyterLab's settings.
_chosen: tuple[str, ...] = COLOURS


def choose(colours: Sequence[str]) -> None:
    """Use other CSS colours from now on; none for the usual."""
    global _chosen
    _chosen = tuple(colours) or COLOURS


def colour(run_id: int) -> str:
    """A CSS colour."""
    return _chosen[(run_id - 1) % len(_chosen)]


def dash(run_id: int) -> tuple[int, ...]:
    """A stroke: lengths of lines and gaps in pixels; empty for a line without gaps."""
    return DASHES[(run_id - 1) // len(_chosen) % len(DASHES)]
