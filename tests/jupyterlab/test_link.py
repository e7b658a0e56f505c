"""The kernel's end of the extension's comm, with a comm that notes what is said."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import Future

import pytest

from rf_notebook.core.errors import IllegalOperation
from rf_notebook.core.receipt import Receipt
from rf_notebook.core.run import RunState
from rf_notebook.jupyterlab.link import Link
from rf_notebook.jupyterlab.protocol import merged
from rf_notebook.session.cells import Sources, source_digest
from rf_notebook.testing.fake_session import FakeExperiments, FakeSession, many_runs, points
from rf_notebook.views import palette
from tests.widgets.hostile import hostile_state

NUMBERS = itertools.count()


class FakeComm:
    """Notes what is said to the pages, and says what a page says."""

    def __init__(self):
        self.said = []
        self.callback = None

    def send(self, data):
        self.said.append(data)

    def on_msg(self, callback):
        self.callback = callback

    def hear(self, kind, **content):
        self.callback(
            {"content": {"data": {"rf_notebook": 1, "version": "0.1.0", "kind": kind, **content}}}
        )

    def ask(self, name, /, **arguments):
        """Ask for a command and give its answer, once there is one."""
        asked = f"c{next(NUMBERS)}"
        self.hear("command", id=asked, name=name, arguments=arguments)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for one in list(self.said):
                if one["kind"] == "answer" and one["id"] == asked:
                    return one
        raise AssertionError(f"{name} was not answered")

    def of(self, kind):
        return [one for one in list(self.said) if one["kind"] == kind]


@pytest.fixture
def host():
    return FakeSession(many_runs(3, 40, metrics=("loss", "eval_loss")), name="demo")


@pytest.fixture
def comm():
    return FakeComm()


@pytest.fixture
def link(host, comm):
    made = Link(FakeExperiments(host), comm, "0.1.0")
    yield made
    made.close()
    palette.choose(())


KEY = "/fake/demo"


def test_it_announces_itself_and_computes_nothing_before_somebody_says_hello(comm, link):
    assert [one["kind"] for one in comm.said] == ["announce"]
    comm.hear("hello")
    (snapshot,) = comm.of("snapshot")
    assert snapshot["state"]["current"] == KEY
    shown = snapshot["state"]["experiments"][KEY]
    assert (shown["name"], shown["standing"], shown["total"]) == ("demo", "training", 3)
    assert shown["runs"]["2"]["knobs"] == ["r 4", "lr 1e-4"]
    assert set(shown["runs"]["1"]["can"]) == {"stop", "clone", "warm start", "export", "delete"}
    assert 2 <= len(shown["runs"]["1"]["spark"]) <= 30


def test_patches_bring_a_page_to_what_a_new_snapshot_shows(comm, link, host):
    comm.hear("hello")
    state = comm.of("snapshot")[0]["state"]
    host.add_live(1, points(1, 8, first=41, metrics=("loss", "eval_loss")))
    link.publish()
    host.operate("stop", [2], "test")
    host.operate("delete", [3], "test")
    link.publish()
    link.publish()
    patches = comm.of("patch")
    assert [one["seq"] for one in patches] == list(range(1, len(patches) + 1))
    for one in patches:
        state = merged(state, one["changes"])
    comm.hear("hello")
    assert comm.of("snapshot")[-1]["state"] == state
    assert comm.of("snapshot")[-1]["seq"] == patches[-1]["seq"]
    assert set(state["experiments"][KEY]["runs"]) == {"1", "2"}


def test_a_patch_holds_only_what_changed(comm, link, host):
    comm.hear("hello")
    host.operate("stop", [2], "test")
    link.publish()
    (patch,) = comm.of("patch")
    runs = patch["changes"]["experiments"][KEY]["runs"]
    assert runs == {"2": {"state": "stopped", "word": "stopped", "can": runs["2"]["can"]}}


def test_each_command_reaches_its_experiment(comm, link, host):
    comm.hear("hello")
    for name, more in {
        "stop": {"runs": [1]},
        "resume": {"runs": [1]},
        "retry": {"runs": [2]},
        "clone": {"runs": [3], "warm": True},
        "export": {"runs": [1], "path": "out"},
        "delete": {"runs": [3]},
        "pause": {},
        "go on": {},
        "replay": {},
        "export notebook": {"path": "out.ipynb"},
        "end": {},
    }.items():
        answer = comm.ask(name, experiment=KEY, **more)
        assert "error" not in answer, name
    assert host.asked == [
        ("stop", [1], "button"),
        ("resume", [1], "button"),
        ("retry", 2, "button"),
        ("clone form", 3, True),
        ("export", 1, "out", "button"),
        ("delete", [3], "button"),
        ("pause", True, "button"),
        ("pause", False, "button"),
        ("replay",),
        ("export notebook", "out.ipynb"),
        ("end",),
    ]
    assert comm.ask("panel", experiment=KEY)["value"] == {"model_id": "panel-model"}
    assert comm.ask("clone", experiment=KEY, runs=[1])["value"] == {"model_id": "form-model"}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("dance", {"experiment": KEY}, "knows no command 'dance'"),
        ("stop", {}, "needs a text for 'experiment'"),
        ("stop", {"experiment": "/elsewhere", "runs": [1]}, "no longer holds that experiment"),
        ("stop", {"experiment": KEY}, "names its runs in a list"),
        ("stop", {"experiment": KEY, "runs": []}, "names its runs in a list"),
        ("stop", {"experiment": KEY, "runs": [99]}, "there is no run 99"),
        ("stop", {"experiment": KEY, "runs": ["1"]}, "'1' is not a run"),
        ("stop", {"experiment": KEY, "runs": [True]}, "True is not a run"),
        ("clone", {"experiment": KEY, "runs": [1, 2]}, "give one run, not 2"),
        ("export", {"experiment": KEY, "runs": [1], "path": " "}, "needs a text for 'path'"),
        ("log", {"experiment": KEY}, "has written no log"),
        ("open", {"name": "never"}, "no experiment 'never'"),
    ],
)
def test_what_cannot_be_is_answered_with_a_sentence(comm, link, host, name, arguments, expected):
    answer = comm.ask(name, **arguments)
    assert expected in answer["error"]
    assert "value" not in answer
    assert host.asked == []


def test_an_answer_waits_until_the_operation_was_obeyed_or_refused(comm, link, host, monkeypatch):
    futures = [Future(), Future()]
    receipts = iter(futures)
    monkeypatch.setattr(
        host, "operate", lambda *_args: Receipt([next(receipts)], lambda made: made)
    )
    comm.hear("hello")
    for asked in ("a", "b"):
        comm.hear("command", id=asked, name="stop", arguments={"experiment": KEY, "runs": [1]})
    link.publish()
    assert comm.of("answer") == []
    futures[1].set_exception(IllegalOperation("cannot stop run 1: it is stopped."))
    futures[0].set_result(1)
    until = time.monotonic() + 10
    while len(comm.of("answer")) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    answers = {one["id"]: one for one in comm.of("answer")}
    assert answers["a"]["value"] == {}
    assert answers["b"]["error"] == "cannot stop run 1: it is stopped."


def test_a_page_of_another_protocol_is_told_what_to_upgrade(comm, link):
    comm.callback({"content": {"data": {"rf_notebook": 2, "version": "9.0.0", "kind": "hello"}}})
    (told,) = comm.of("mismatch")
    assert "JupyterLab has rf_notebook 9.0.0 and this kernel 0.1.0" in told["sentence"]
    assert "the kernel's environment" in told["sentence"]
    assert comm.of("snapshot") == []


@pytest.mark.parametrize(
    "data",
    [None, 3, [], "x", {"rf_notebook": 1}, {"rf_notebook": 1, "kind": "hello", "every_seconds": 0}],
)
def test_nonsense_is_passed_over(comm, link, data):
    comm.callback({"content": {"data": data}})
    assert [one["kind"] for one in comm.said] == ["announce"]


def test_what_lies_on_disk_is_listed_and_opened(comm):
    experiments = FakeExperiments()
    experiments.on_disk = {"old": {"standing": "interrupted", "runs": 4}}
    link = Link(experiments, comm, "0.1.0")
    comm.hear("hello")
    assert comm.of("snapshot")[0]["state"] == {"experiments": {}, "recorded": experiments.on_disk}
    assert "error" not in comm.ask("open", name="old")
    assert experiments.opened == ["old"]
    link.close()


def test_a_page_s_colours_are_the_panel_s(comm, link):
    comm.hear("hello", colours=["#112233", "#445566"])
    assert [palette.colour(run_id) for run_id in (1, 2, 3)] == ["#112233", "#445566", "#112233"]
    comm.hear("hello")
    assert palette.colour(1) == "#0072b2"


def test_the_cells_that_it_was_made_from_are_told(comm, link, host):
    host.sources = Sources(cells=("a", "b"))
    comm.hear("hello")
    shown = comm.of("snapshot")[0]["state"]["experiments"][KEY]
    assert shown["sources"] == {
        "ran": [source_digest("a"), source_digest("b")],
        "launch": source_digest("b"),
    }
    assert len(shown["spec"]) == 64


def test_a_state_of_hostile_texts_is_told_as_texts_of_bounded_length(comm):
    host = FakeSession(hostile_state(), name="demo")
    link = Link(FakeExperiments(host), comm, "0.1.0")
    comm.hear("hello")
    shown = comm.of("snapshot")[0]["state"]["experiments"][KEY]
    assert shown["runs"]["2"]["state"] == str(RunState.FAILED)
    assert len(str(shown)) < 30_000
    assert None not in shown.values()
    link.close()


def test_a_page_is_told_that_figures_are_newer_and_gets_them_when_it_asks(host):
    comm = FakeComm()
    link = Link(FakeExperiments(host), comm, "0.1.0")
    comm.hear("hello")
    (key,) = comm.of("snapshot")[-1]["state"]["experiments"]
    assert "saved" not in comm.of("snapshot")[-1]["state"]["experiments"][key], (
        "no notebook shows any"
    )
    host.saved_seq = 12
    link.publish()
    assert (
        merged(comm.of("snapshot")[-1]["state"], comm.of("patch")[-1]["changes"])["experiments"][
            key
        ]["saved"]
        == 12
    )
    live, figures = comm.ask("outputs", experiment=key)["value"]["outputs"]
    assert live == {"text/plain": "a live panel"}
    assert figures == comm.ask("saved", experiment=key)["value"]["data"]
    assert comm.ask("saved", experiment=key)["value"] == {
        "data": {"text/plain": "figures up to event 12"}
    }
    link.close()
