"""What do the knobs do? How much of a metric each explains, and in what runs differ."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from rf_notebook.core.values import canonical_json
from rf_notebook.views.document import Node, element
from rf_notebook.views.marks import dot
from rf_notebook.views.words import NAME_LENGTH, config_value, knob_name, shortened

if TYPE_CHECKING:
    from rf_notebook.views.run_row import RunRow
    from rf_notebook.views.runs_table import RunsView

_MOST_RUNS = 12
_LONGEST = 200
#: Below so many runs nothing can be said.
_FEWEST = 4


def importance(rows: Sequence[RunRow], metric: str) -> list[tuple[str, float]]:
    """How much of a metric's variance each knob explains by itself, most first.

    The correlation ratio (eta squared): the variance of the means of the runs with one value each,
    as a share of the variance of all. 1 where the knob alone decides, 0 where it changes nothing on
    average. A knob with a value of its own for every run explains everything and is left out.

    Args:
        rows: The runs; those that diverged, or have not logged the metric, do not count.
        metric: Its latest values.
    """
    scored = [
        (row, row.latest[metric])
        for row in rows
        if not row.has_diverged and math.isfinite(row.latest.get(metric, math.nan))
    ]
    if len(scored) < _FEWEST:
        return []
    mean = fmean(value for _, value in scored)
    total = sum((value - mean) ** 2 for _, value in scored)
    found = []
    for key in scored[0][0].knobs:
        groups: dict[str, list[float]] = {}
        for row, value in scored:
            groups.setdefault(canonical_json(row.config.get(key)), []).append(value)
        if total > 0 and 1 < len(groups) < len(scored):
            between = sum(len(one) * (fmean(one) - mean) ** 2 for one in groups.values())
            found.append((key, min(1.0, between / total)))
    return sorted(found, key=lambda one: (-one[1], one[0]))


def knobs_page(view: RunsView, selected: Collection[int]) -> Node:
    """What explains the metric, and in what the selected runs (or the first few) differ.

    Args:
        view: Of the runs that are shown.
        selected: Of those.
    """
    return element("div", _importance(view), _differences(view, selected))


def _importance(view: RunsView) -> Node:
    shares = [] if view.metric is None else importance(view.rows, view.metric)
    if not shares:
        return ""
    lines = [
        element(
            "tr",
            element("th", knob_name(key), scope="row", title=key),
            element(
                "td",
                element(
                    "div",
                    element("div", class_="rf-bar-done", style=f"width:{100 * share:.0f}%"),
                    class_="rf-bar",
                ),
            ),
            element("td", f"{share:.0%}"),
        )
        for key, share in shares
    ]
    words = (
        f"How much of the variance of {shortened(view.metric or '', NAME_LENGTH)} each knob explains "
        "by itself among these runs. Knobs that work together share it."
    )
    return element(
        "div",
        element("h4", "Importance of knobs"),
        element("table", element("tbody", *lines), class_="rf-importance"),
        element("p", words, class_="rf-dim"),
    )


def _differences(view: RunsView, selected: Collection[int]) -> Node:
    rows = [row for row in view.rows if row.run_id in selected]
    rows = (rows if len(rows) > 1 else list(view.rows))[:_MOST_RUNS]
    if len(rows) < 2:
        return ""
    keys = dict.fromkeys(key for row in rows for key in row.config)
    differing = [
        key for key in keys if len({canonical_json(row.config.get(key)) for row in rows}) > 1
    ]
    heads = [element("th", dot(row.run_id), shortened(row.words, NAME_LENGTH)) for row in rows]
    lines = [
        element(
            "tr",
            element("th", key, scope="row"),
            *(
                element("td", shortened(config_value(row.config.get(key)), _LONGEST))
                for row in rows
            ),
        )
        for key in differing
    ]
    table = element(
        "table",
        element("thead", element("tr", element("td", ""), *heads)),
        element("tbody", *lines),
    )
    words = (
        "the selected runs"
        if len({row.run_id for row in rows}.intersection(selected)) > 1
        else f"the first {len(rows)} runs; select others to compare them"
        if len(view.rows) > len(rows)
        else "these runs"
    )
    return element(
        "div",
        element("h4", f"Configs: in what {words} differ"),
        table if differing else element("p", "They have the same config.", class_="rf-dim"),
        class_="rf-differences",
    )
