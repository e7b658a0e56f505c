"""Names, configs and errors never become markup, in any page."""

from __future__ import annotations

import html.parser
import json

import pytest

from rf_notebook.core.status import Status
from rf_notebook.testing.fake_session import many_runs, recorded_state
from rf_notebook.views import compare
from rf_notebook.views.arrangement import Arrangement, ChartArrangement
from rf_notebook.views.curves import curves_figure
from rf_notebook.views.document import element, text_of, to_html
from rf_notebook.views.header import header
from rf_notebook.views.lineage import lineage
from rf_notebook.views.messages import log_of, messages
from rf_notebook.views.samples import samples
from rf_notebook.views.saved import PANEL_MIME, static_bundle
from rf_notebook.views.schedule import schedule
from rf_notebook.views.series import (
    CurveSettings,
)
from tests.widgets.hostile import TEXTS, hostile_state
from tests.widgets.test_views import series_of, view_of


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def every_page():
    state = hostile_state()
    view = view_of(state, TEXTS[1])
    yield header(TEXTS[0], state, Status(open=True, held_up=TEXTS[1], error=None))
    yield header(TEXTS[1], state, Status(open=False, error=TEXTS[0]))
    yield lineage(state, TEXTS[1], view)
    yield schedule(state)
    yield samples(state, [])
    yield messages(state, [])
    yield log_of(state, [], {1: list(TEXTS)})


def test_no_text_becomes_markup_in_any_page():
    harmless = {
        "div",
        "span",
        "b",
        "p",
        "ul",
        "li",
        "button",
        "details",
        "summary",
        "pre",
        "svg",
        "g",
        "rect",
        "text",
    }
    harmless |= {"title", "line", "table", "thead", "tbody", "tr", "th", "td"}
    for node in every_page():
        parser = Tags()
        parser.feed(to_html(node))
        assert {tag for tag, _ in parser.found} <= harmless
        assert not [
            attributes
            for _, attributes in parser.found
            if any(name.startswith("on") for name in attributes)
        ]
    assert TEXTS[0] in text_of(samples(hostile_state(), []))


def test_documents_refuse_elements_and_addresses_that_could_act():
    for wrong in ("script", "iframe", "a", "style", "object"):
        with pytest.raises(ValueError, match="no element"):
            element(wrong)
    with pytest.raises(ValueError, match="no attribute"):
        element("div", onclick="x")
    with pytest.raises(ValueError, match="data: URL"):
        element("img", src="https://example.org/x.png")


def test_plotly_gets_texts_that_it_shows_as_they_stand():
    state = hostile_state()
    figure = curves_figure(state, series_of(state), CurveSettings(metric=TEXTS[1]))
    assert "<" not in figure.layout["yaxis"]["title"]["text"]
    view = view_of(state, TEXTS[1])
    made = [
        *compare.scatter_figure(view, TEXTS[0], TEXTS[1]).traces,
        *compare.parallel_figure(view, TEXTS[0]).traces,
    ]
    for trace in made:
        for text in [*trace.props.get("hovertext", []), trace.props["name"]]:
            assert "<" not in text


def test_the_static_twin_is_small_and_holds_text_only():
    for state in (
        hostile_state(),
        many_runs(64, 2000, metrics=("loss", "eval_loss")),
        recorded_state([]),
    ):
        series = series_of(state)
        for by in ("", "training_args.learning_rate"):
            arranged = Arrangement(
                group_by=by,
                charts=tuple(ChartArrangement(metric=one) for one in series.metrics),
                columns=tuple(TEXTS) if by else (),
            )
            bundle = static_bundle("name", state, series, None, arrangement=arranged)
            assert len(json.dumps(bundle)) < 300_000
        parser = Tags()
        parser.feed(bundle["text/html"])
        assert {tag for tag, _ in parser.found} <= {
            "div",
            "p",
            "b",
            "img",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "span",
        }
        json.dumps(bundle[PANEL_MIME], allow_nan=False)
        assert set(bundle) >= {PANEL_MIME, "text/html", "text/plain"}
