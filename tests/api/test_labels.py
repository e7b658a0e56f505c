"""Names, tags and notes, from Python: recorded, found again, and never in the way of training."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rf_notebook import ConfigError, Experiment
from rf_notebook.core.errors import IllegalOperation, ReadOnlyExperiment, UnknownRun
from rf_notebook.record.files import RECORD
from rf_notebook.record.record import parse_record
from rf_notebook.record.recording import record_of
from rf_notebook.session.registry import forget_all
from rf_notebook.store.lease import this_process
from tests.api.world import curve, fit, two


def test_labels_are_given_while_it_trains_and_found_again(new, backend):
    plain = fit(new("plain"), two())
    plain.end()
    experiment = fit(new(), two(num_train_epochs=3))
    run = experiment.runs[0]
    assert (run.name, run.tags, run.note) == ("run 1", (), "")
    experiment.label(1, name=" small rate ", tags=["keep", "paper", "keep"]).result(30)
    experiment.label(run, note="slow, but\nlow").result(30)
    experiment.label([1, 2], tags=["paper"]).result(30)
    experiment.label(tags=["first"], note="rates").result(30)
    assert (run.name, run.tags, run.note) == ("small rate", ("paper",), "slow, but\nlow")
    assert repr(run).startswith("<Run 1 'small rate': ")
    experiment.end()
    assert curve(experiment, 1)[:12] == curve(plain, 1), "and nothing of it trains otherwise"
    experiment.session.store.close()
    forget_all()
    again = Experiment("test", experiment_path=experiment.folder.parent, runner=backend)
    table = again.get_runs_info().set_index("run_id")
    assert list(table["name"]) == ["small rate", "run 2"]
    assert table["tags"][2] == ["paper"]
    assert (again.tags, again.note) == (("first",), "rates")
    again.session.store.close()


def test_labels_are_given_after_the_end_and_are_in_the_record(new):
    experiment = fit(new(), two())
    experiment.end()
    assert "labels" not in json.loads((experiment.folder / RECORD).read_text())
    receipt = experiment.label(2, name="best", note="this one")
    assert receipt.done()
    assert receipt.result() is None
    assert experiment.runs[1].name == "best"
    assert not experiment.session.is_training
    written = json.loads((experiment.folder / RECORD).read_text())
    record = parse_record(written)
    assert [(one.run, one.name, one.note) for one in record.labels] == [(2, "best", "this one")]
    assert record.digest_now() == record.digest
    assert record.as_json() == written == record_of(experiment.session.state)
    experiment.label(2, name="", note="")
    assert "labels" not in json.loads((experiment.folder / RECORD).read_text())
    fit(experiment, two())
    experiment.end()


def test_who_does_not_hold_the_experiment_labels_nothing(new):
    experiment = fit(new(), two())
    experiment.end()
    elsewhere = replace(this_process(), host="another machine")
    fence = experiment.session.store.acquire(elsewhere)
    with pytest.raises(ReadOnlyExperiment, match="another machine"):
        experiment.label(1, name="mine")
    experiment.session.store.release(fence)
    experiment.label(1, name="mine")
    assert experiment.runs[0].name == "mine"


def test_what_cannot_be_a_label_is_said(new):
    experiment = new()
    with pytest.raises(IllegalOperation, match="has no runs yet"):
        experiment.label(note="x")
    fit(experiment, two()).end()
    for wrong, words in (
        ({}, "give a name, tags or a note"),
        ({"name": "x" * 61}, "one line of up to 60"),
        ({"name": "two\nlines"}, "one line of up to 60"),
        ({"name": "\x1b[31mred"}, "characters that can be seen"),
        ({"name": 3}, "name is text, not 3"),
        ({"tags": "keep"}, r"give a list, as in tags=\['keep'\]"),
        ({"tags": 3}, "is not a list of texts"),
        ({"tags": ["a,b"]}, "no comma"),
        ({"tags": [" "]}, "not empty"),
        ({"tags": [None]}, "a tag is text, not None"),
        ({"tags": list(map(str, range(21)))}, "21 tags are too many; 20 at most"),
        ({"note": "x" * 10_001}, "up to 10,000 characters"),
        ({"note": b"x"}, "a note is text"),
    ):
        with pytest.raises(ConfigError, match=words):
            experiment.label(1, **wrong)
    with pytest.raises(ConfigError, match="name is for one run"):
        experiment.label([1, 2], name="both")
    with pytest.raises(ConfigError, match="the name of its folder"):
        experiment.label(name="mine")
    with pytest.raises(UnknownRun, match="no run 9"):
        experiment.label(9, name="nobody")
    assert not experiment.session.state.labels
    experiment.label(1, note="half a \ud83d\ude00"[:8] + "\x00")
    assert experiment.runs[0].note == "half a ?�"
