"""Which run came from which?"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rf_notebook.views.document import Node, element
from rf_notebook.views.marks import dot
from rf_notebook.views.words import ICONS, config_value, knob_name, number, run_name, shortened

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.views.runs_table import RunsView


_SENTENCE = 400


def lineage(
    state: ExperimentState,
    metric: str | None,
    view: RunsView,
    shown: Collection[int] | None = None,
) -> Node:
    """The tree of clones: who came from whom, with which edits.

    Args:
        state: The experiment's state.
        metric: Whose latest value stands beside each run.
        view: The table's, of all runs.
        shown: The runs that the user looks at, all when None; of the others only ancestors are there.
    """
    values = {row.run_id: row.latest.get(metric) if metric else None for row in view.rows}
    children: dict[int | None, list[RunRecord]] = {}
    for record in list(state.runs.values()):
        children.setdefault(record.parent_id, []).append(record)

    def branch(record: RunRecord) -> Node | None:
        inner = [made for one in children.get(record.run_id, []) if (made := branch(one))]
        is_shown = shown is None or record.run_id in shown
        if not is_shown and not inner:
            return None
        edits = [f"{knob_name(key)} → {config_value(value)}" for key, value in record.edits.items()]
        report = record.warm_start_report
        return element(
            "li",
            element(
                "button",
                dot(record.run_id),
                run_name(state, record.run_id),
                class_="rf-link",
                data_action=f"select {record.run_id}",
                aria_label=f"select run {record.run_id}",
            ),
            element("span", f" {ICONS[record.state]} {record.state}", class_=f"rf-{record.state}"),
            element("span", f"  {metric} {number(values.get(record.run_id))}", class_="rf-dim")
            if metric
            else None,
            element("span", f"  {shortened('; '.join(edits), _SENTENCE)}", class_="rf-edits")
            if edits
            else None,
            element("span", f"  {report.sentence()}", class_="rf-dim")
            if report is not None
            else None,
            element("ul", *inner) if inner else None,
            class_=None if is_shown else "rf-aside",
        )

    roots = [made for record in children.get(None, []) if (made := branch(record))]
    if len(roots) == len(state.runs):
        hint = element("p", "Clones appear here below their parents.", class_="rf-dim")
        return element("div", hint, element("ul", *roots, class_="rf-tree"))
    return element("ul", *roots, class_="rf-tree")
