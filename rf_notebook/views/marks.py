"""What do several pages show of a run? A dot in its colour."""

from __future__ import annotations

from rf_notebook.views.document import Node, element
from rf_notebook.views.palette import colour


def dot(run_id: int) -> Node:
    """A run's colour as a small disc."""
    return element("span", class_="rf-dot", style=f"background:{colour(run_id)}")
