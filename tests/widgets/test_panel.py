"""The panel without a browser.

Handlers are called as the front end would, on a host that only takes notes.
"""

from __future__ import annotations

import pytest

from rf_notebook.core.errors import IllegalOperation
from rf_notebook.core.events import (
    OperationObeyed,
    PolicyChanged,
    Recorded,
    RunAdded,
    RunFailed,
    StateChanged,
)
from rf_notebook.core.operations import CloneRun, StopRun
from rf_notebook.core.run import Failure, RunState
from rf_notebook.core.status import Status
from rf_notebook.results.decisions import savings_of
from rf_notebook.testing.fake_session import FakeSession, many_runs, points
from rf_notebook.views.document import text_of
from rf_notebook.widgets.panel import PAGES, Panel
from rf_notebook.widgets.pump import Pump
from tests.widgets.hostile import hostile_state

pytestmark = pytest.mark.filterwarnings("ignore:.*comm.*")


@pytest.fixture
def fake():
    return FakeSession(many_runs(4, 50))


@pytest.fixture
def panel(fake):
    return Panel(fake, fake)


def panel_of(state, **of_session):
    return Panel(fake := FakeSession(state, **of_session), fake)


def test_buttons_act_on_the_selected_runs(panel, fake):
    panel.table.selected = [1, 3]
    panel.buttons["stop"].click()
    assert fake.asked == [("stop", [1, 3], "button")]
    assert panel.buttons["stop"].disabled
    panel.buttons["resume"].click()
    assert fake.asked[-1] == ("resume", [1, 3], "button")


def test_a_brush_selects_its_runs_and_a_page_cannot_name_others(panel):
    def brush(runs):
        content = {"kind": "brush", "runs": runs}
        panel.compare.parallel._handle_custom_msg(content, [])  # noqa: SLF001 - as ipywidgets does

    for runs, selected in (([3, 1], [1, 3]), ([2, 99, "1", None], [2]), ("all", [2]), ([], [])):
        brush(runs)
        assert panel.table.selected == selected


def test_nothing_is_deleted_before_it_is_confirmed(panel, fake):
    panel.table.selected = [2]
    panel.buttons["delete"].click()
    assert fake.asked == []
    panel.question.no.click()
    assert fake.asked == []
    panel.buttons["delete"].click()
    panel.question.yes.click()
    assert fake.asked == [("delete", [2], "button")]
    assert panel.table.selected == []


def test_a_click_on_a_disabled_button_that_comes_late_is_refused_in_a_sentence(panel, fake):
    panel.table.selected = [1]
    panel.clicked("resume")
    assert "only a stopped run can be resumed" in text_of(panel.toast.root)
    assert fake.asked == []


def test_the_clone_form_makes_a_clone_for_each_combination_and_shows_it_first(panel, fake):
    panel.table.selected = [2]
    panel.buttons["clone"].click()
    form = panel.clone_form
    form.fields["training_args.learning_rate"].value = "5e-4, 2e-3"
    form.fields["peft_config.r"].value = "8, 16"
    assert form.submit.description == "Start 4 clones"
    assert "- learning_rate 1e-4" in text_of(form.diff.root)
    form.fields["peft_config.r"].value = "eight"
    assert form.submit.disabled
    assert "r" in text_of(form.diff.root)
    form.fields["peft_config.r"].value = "16"
    form.submit.click()
    verb, run_id, edits, warm, origin = fake.asked[-1]
    assert (verb, run_id, warm, origin) == ("clone", 2, False, "button")
    assert [e["training_args.learning_rate"] for e in edits] == [5e-4, 2e-3]


def test_the_clone_form_of_a_run_out_of_memory_offers_what_may_fit(panel, fake):
    offered = {
        "training_args.per_device_train_batch_size": 4,
        "training_args.gradient_accumulation_steps": 2,
    }
    failure = Failure(
        message="out of device memory", traceback="", out_of_memory=True, retry=offered
    )
    fake.recent_state.apply(
        Recorded(seq=10_000, at=0.0, event=RunFailed(run_id=2, failure=failure))
    )
    panel.clone_form.open(2, warm=False)
    assert "half the batch" in text_of(panel.clone_form.title.root)
    assert panel.clone_form.edits == [offered]
    assert "+ per_device_train_batch_size 4" in text_of(panel.clone_form.diff.root)


def test_a_knob_that_is_not_shown_can_be_found(panel):
    panel.clone_form.open(1, warm=False)
    panel.clone_form.more.value = "weight_dcay"
    assert panel.clone_form.submit.disabled
    assert "did you mean 'weight_decay'" in text_of(panel.clone_form.diff.root)
    panel.clone_form.more.value = "training_args.weight_decay"
    panel.clone_form.fields["training_args.weight_decay"].value = "0.1"
    assert panel.clone_form.edits == [{"training_args.weight_decay": 0.1}]


def test_every_page_can_be_drawn_also_of_hostile_text():
    fake = FakeSession(hostile_state())
    panel = Panel(fake, fake)
    for page in PAGES:
        panel.show_page(page)
        assert panel.page == page
    panel.table.selected = [2]
    panel.clone_form.open(2, warm=True)


def test_a_chosen_metric_stays_and_an_unchosen_one_follows_the_evaluation():
    fake = FakeSession(many_runs(2, 20))
    panel = Panel(fake, fake)
    assert panel.curves.metric.value == "loss"
    more = many_runs(2, 20, metrics=("loss", "eval_loss"))
    fake.recent_state = more
    panel.series.__init__()
    panel.update()
    assert panel.curves.metric.value == "eval_loss"
    panel.curves.metric.widget.value = "loss"
    panel.update()
    assert panel.curves.metric.value == "loss"


def test_a_wrong_filter_filters_nothing_and_says_why(panel):
    panel.shown.filter.value = "nothing > 3"
    assert len(panel.table.rows) == 4
    assert "is not a column" in text_of(panel.shown.words.root)
    panel.shown.filter.value = "run > 2"
    assert text_of(panel.shown.words.root) == "2 of 4 runs shown"
    assert {row["run"] for row in panel.table.rows} == {3, 4}


def test_an_update_without_news_sends_nothing(panel):
    sent = []
    for widget in (panel.header, panel.table, panel.toast, panel.selection_label):
        widget.observe(lambda change: sent.append(change["name"]))
    panel.update()
    assert sent == []


def test_the_pump_shows_news_and_survives_a_view_that_cannot_be_drawn():
    host = FakeSession(many_runs(1, 5))
    seen, errors = [], []

    def update():
        seen.append(1)
        if len(seen) == 1:
            raise ZeroDivisionError

    pump = Pump(host.wait_for_change, update, name="t", on_error=errors.append)
    version = pump.turn(-1)
    host.add_live(1, points(1, 1, first=6))
    assert pump.turn(version) == version + 1
    assert len(seen) == 2
    assert "ZeroDivisionError" in errors[0]
    pump.start()
    pump.end()
    assert not pump.is_alive


@pytest.mark.parametrize(("runs", "behind"), [(64, [True, True, True, False]), (8, [False])])
def test_charts_with_many_curves_take_turns_and_none_is_left_behind(runs, behind):
    metrics = ("loss", "eval_loss", "reward", "grad_norm")
    host = FakeSession(many_runs(runs, 20, metrics=metrics))
    panel = Panel(host, host)
    for _ in metrics[1:]:
        panel.curves.add.click()

    def drawn():
        return [len(one.chart.frame["x"]) for one in panel.curves.charts]

    def log(first):
        for run_id in range(1, runs + 1):
            host.add_live(run_id, points(run_id, 4, first=first, metrics=metrics))

    before = drawn()
    log(first=21)
    changed = []
    for is_behind in behind:
        assert panel.update_in_turn() == is_behind
        changed.append(sum(now > then for now, then in zip(drawn(), before, strict=True)))
    assert changed == ([1, 2, 3, 4] if len(behind) > 1 else [4])
    log(first=25)
    panel.update_in_turn()
    panel.show_page("Log")
    assert not panel.update_in_turn(), "what is not shown is not waited for"
    panel.show_page("Curves")
    panel.update()
    assert len(set(drawn())) == 1, "what the user asks for is drawn at once"


def test_the_pump_comes_again_without_news_while_something_is_left():
    host = FakeSession(many_runs(1, 5))
    left = [True, True, False]
    pump = Pump(host.wait_for_change, lambda: left.pop(0), name="t", on_error=pytest.fail)
    seen = pump.turn(-1)
    for _ in range(5):
        seen = pump.turn(seen)
    assert left == []


def test_a_zoom_is_fetched_in_detail_and_another_axis_leaves_it():
    panel = panel_of(many_runs(2, 9000))
    whole = sum(trace["n"] for trace in panel.curves.chart.frame["traces"][:1])
    panel.curves.chart.zoom = [4000.0, 4400.0]
    frame = panel.curves.chart.frame
    assert frame["layout"]["xaxis"]["range"] == [4000.0, 4400.0]
    assert frame["traces"][0]["n"] > 90, (
        "every one of the hundred points between, not the few of the whole view"
    )
    assert whole <= 240
    panel.curves.x_axis.widget.value = "step"
    assert panel.curves.chart.zoom == []
    assert "range" not in panel.curves.chart.frame["layout"]["xaxis"]


def automated():
    """Two runs of four stopped by a policy, one of them cloned."""
    state = many_runs(4, 50)
    events = [PolicyChanged(name="halving")]
    for run_id, what in ((1, StopRun), (2, StopRun)):
        events.append(obeyed(state, what(run_id=run_id), f"run {run_id} is <b>weak</b>"))
        events.append(StateChanged(run_id=run_id, state=RunState.STOPPED))
    config = state.record(3).config
    events.append(obeyed(state, CloneRun(run_id=3, config=config, edits={}), "run 3 leads"))
    events.append(RunAdded(run_id=5, config=config, parent_id=3))
    for event in events:
        state.apply(Recorded(seq=state.last_seq + 1, at=0.0, event=event))
    return state


def obeyed(state, operation, reason):
    record = state.record(operation.run_id)
    return OperationObeyed(
        operation=operation, steps=record.progress.steps, samples=record.progress.samples, origin="halving",
        run_state=record.state, reason=reason,
    )  # fmt: skip


def test_the_automation_page_tells_who_decides_what_was_spared_and_why():
    status = Status(open=True, waits_for="chunk 4 of run 3")
    fake = FakeSession(automated(), status=status)
    panel = Panel(fake, fake)
    panel.tabs.page = "Automation"
    text = text_of(panel.documents["Automation"].root)
    assert "halving" in text
    assert "waits for chunk 4 of run 3" in text
    assert "run 1 is <b>weak</b>" in text, "text stays text"
    saved = savings_of(fake.recent_state)
    assert saved.samples > 0
    assert saved.seconds > 0
    assert f"{saved.samples:,} samples" in text
    assert text.count("Undo") == 3
    assert "pin run 3" in text


def test_undo_pin_and_taking_the_wheel_by_click():
    fake = FakeSession(automated())
    panel = Panel(fake, fake)
    panel.tabs.page = "Automation"
    for action in ("undo 2", "pin 3", "unpin 3", "wheel", "undo 99", "pin x"):
        panel.act(action)
    assert fake.asked == [
        ("undo", 2, "button"),
        ("pin", 3, True, "button"),
        ("pin", 3, False, "button"),
        ("automate", None, "button"),
    ]
    fake.undo = lambda run, origin: (_ for _ in ()).throw(
        IllegalOperation("no policy did anything to it.")
    )
    panel.act("undo 3")
    assert "no policy did anything to it." in text_of(panel.toast.root)


def test_without_a_policy_the_page_says_how_to_get_one(panel):
    panel.tabs.page = "Automation"
    assert "%rapidfire automate halving" in text_of(panel.documents["Automation"].root)
