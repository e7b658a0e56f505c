"""What the extension's TypeScript twin passes, too: labextension/fixtures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_notebook.core.errors import ConfigError
from rf_notebook.jupyterlab.protocol import (
    PROTOCOL,
    Command,
    Hello,
    ProtocolMismatch,
    changes,
    merged,
    message,
    read_message,
)
from rf_notebook.session.cells import source_digest
from rf_notebook.testing.fake_session import many_runs
from rf_notebook.views import saved
from rf_notebook.views.arrangement import Arrangement, ChartArrangement
from rf_notebook.views.palette import colour, dash
from rf_notebook.views.saved import PANEL_MIME, static_bundle
from rf_notebook.views.series import ExperimentSeries
from rf_notebook.views.words import duration, number

FOLDER = Path(__file__).parents[2] / "labextension" / "fixtures"
FIXTURES = json.loads((FOLDER / "protocol.json").read_text())


def test_both_speak_the_same_protocol():
    assert FIXTURES["protocol"] == PROTOCOL


@pytest.mark.parametrize("case", FIXTURES["patches"])
def test_patches(case):
    assert changes(case["before"], case["after"]) == case["patch"]
    assert merged(case["before"], case["patch"]) == case["after"]


@pytest.mark.parametrize("case", FIXTURES["from_page"])
def test_messages_from_a_page(case):
    if case.get("mismatch"):
        with pytest.raises(ProtocolMismatch, match="upgrade rf-notebook in"):
            read_message(case["message"], "0.1.0")
    elif case["ok"]:
        assert isinstance(read_message(case["message"], "0.1.0"), Hello | Command)
    else:
        with pytest.raises(ConfigError):
            read_message(case["message"], "0.1.0")


def test_messages_to_a_page():
    known = [case["message"] for case in FIXTURES["from_kernel"]]
    assert message("announce", "0.1.0") in known
    assert message("snapshot", "0.1.0", seq=0, state={}) in known
    assert message("patch", "0.1.0", seq=3, changes={"current": None}) in known
    assert message("answer", "0.1.0", id="c1", value={}) in known
    assert message("answer", "0.1.0", id="c1", error="cannot stop run 1: it is stopped.") in known
    assert message("mismatch", "0.1.0", sentence="upgrade") in known


@pytest.mark.parametrize("case", FIXTURES["sources"])
def test_digests_of_sources(case):
    assert source_digest(case["source"]) == case["digest"]


def test_figures_and_colours():
    assert [number(case["value"]) for case in FIXTURES["numbers"]] == [
        case["text"] for case in FIXTURES["numbers"]
    ]
    assert [duration(case["seconds"]) for case in FIXTURES["durations"]] == [
        c["text"] for c in FIXTURES["durations"]
    ]
    for case in FIXTURES["colours"]:
        assert (colour(case["run"]), [*dash(case["run"])]) == (case["colour"], case["dash"])


def test_the_saved_panel_is_what_the_renderer_is_tested_with(monkeypatch):
    monkeypatch.setattr(saved.time, "strftime", lambda form: "25 Nov 2026, 22:10")
    state = many_runs(3, 20, metrics=("loss", "eval_loss"))
    series = ExperimentSeries()
    series.update(state)
    arranged = Arrangement(
        group_by="training_args.learning_rate",
        charts=(ChartArrangement(), ChartArrangement(metric="loss")),
    )
    bundle = static_bundle("fake", state, series, "eval_loss", model_id="abc", arrangement=arranged)
    made = bundle[PANEL_MIME]
    assert json.loads(json.dumps(made)) == json.loads((FOLDER / "panel.json").read_text())


values = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)
states = st.dictionaries(st.text(max_size=2), values, max_size=4)


@given(states, states)
def test_a_patch_makes_any_state_of_any_other(before, after):
    assert merged(before, changes(before, after)) == after


@given(states)
def test_nothing_changed_is_an_empty_patch(state):
    assert changes(state, json.loads(json.dumps(state))) == {}
