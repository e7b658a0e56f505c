"""One page that shows an experiment in any browser.

Curves, runs, who came from whom, what was done, what made it.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rf_notebook.core.values import flatten
from rf_notebook.views.document import Node, element, to_html
from rf_notebook.views.runs_table import runs_view
from rf_notebook.views.saved import curves_svg, runs_html_table
from rf_notebook.views.series import CurveSettings, ExperimentSeries
from rf_notebook.views.words import config_value, shortened

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.record.record import Record, Spec

_MOST_METRICS = 6
_POINTS = 400
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: 3px 10px; text-align: left; border-bottom: 1px solid #8884; white-space: nowrap; }
pre { background: #8881; padding: .7rem; overflow-x: auto; font-size: 12.5px; }
svg { max-width: 100%; height: auto; }
h3 { margin-top: 2rem; }
"""


def report_page(
    name: str,
    record: Record,
    operations: Sequence[str],
    state: ExperimentState,
    series: ExperimentSeries,
) -> str:
    """The page as HTML, without scripts and without anything from elsewhere.

    Args:
        name: The experiment's name.
        record: As it travels.
        operations: What was done to it, a line each.
        state: The experiment's state.
        series: Up to date.
    """
    usual = series.usual_metric
    view = runs_view(state, series, usual)
    metrics = list(dict.fromkeys([*([usual] if usual else []), *series.metrics]))[:_MOST_METRICS]
    spec = record.spec
    body: list[Node] = [
        element("h3", f"Experiment {shortened(name, 200)}"),
        element("p", f"Identity {record.identity}; digest of this record {record.digest}."),
        runs_html_table(view),
    ]
    for metric in metrics:
        settings = CurveSettings(metric=metric, max_points=_POINTS)
        curves = {row.run_id: series.curve(row.run_id, settings) for row in view.rows}
        curves = {run_id: curve for run_id, curve in curves.items() if len(curve[0])}
        if curves:
            body += [element("h4", shortened(metric, 80)), curves_svg(curves, metric)]
    body += [
        element("h3", "Lineage"),
        _list(_lineage(record)),
        element("h3", "What was done while it trained"),
        _list(operations),
        element("h3", "What it was made from"),
        _table(_facts(spec)),
        element("h3", "Configs"),
        _configs(spec),
        element("h3", "Code"),
        *(element("pre", cell) for cell in spec.cells),
    ]
    title = html.escape(f"Experiment {shortened(name, 200)}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(map(to_html, body))
        + "\n</body>\n</html>\n"
    )


def _list(lines: Sequence[str]) -> Node:
    return (
        element("ul", *(element("li", line) for line in lines)) if lines else element("p", "None.")
    )


def _lineage(record: Record) -> list[str]:
    clones = [one for one in record.operations if one.what == "clone"]
    lines = []
    for result in record.results:
        if result.parent is None:
            continue
        made = clones.pop(0) if clones else None
        warm = ", warm" if made is not None and made.warm_start else ""
        edits = {} if made is None else made.edits
        words = (
            ", ".join(f"{key} = {config_value(value)}" for key, value in edits.items())
            or "no edits"
        )
        lines.append(f"run {result.run} from run {result.parent}{warm}: {words}")
    return lines


def _facts(spec: Spec) -> list[tuple[str, str]]:
    settings = {
        name: getattr(spec, name) for name in ("num_chunks", "seed", "data_seed", "execution")
    }
    rows = {**settings, "data": _without_blocks(spec.data), "versions": spec.versions}
    rows["environment"] = spec.environment
    rows |= {f"base model {i}": model.facts for i, model in enumerate(spec.models, start=1)}
    return [(name, config_value(value)) for name, value in flatten(rows).items()]


def _without_blocks(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        part: None
        if of_it is None
        else {name: value for name, value in of_it.items() if name != "blocks"}
        for part, of_it in data.items()
    }


def _configs(spec: Spec) -> Node:
    flat = []
    for config in spec.configs:
        flat.append(flatten(config.as_run_config().as_json()))
    names = list(dict.fromkeys(name for config in flat for name in config))
    heads = element(
        "tr", element("th", ""), *(element("th", f"run {i}") for i in range(1, len(flat) + 1))
    )
    rows = [
        element(
            "tr",
            element("th", name),
            *(
                element("td", shortened(config_value(config[name]), 60) if name in config else "")
                for config in flat
            ),
        )
        for name in names
    ]
    return element("table", element("thead", heads), element("tbody", *rows))


def _table(rows: Sequence[tuple[str, str]]) -> Node:
    made = [
        element("tr", element("th", name), element("td", shortened(value, 200)))
        for name, value in rows
    ]
    return element("table", element("tbody", *made))
