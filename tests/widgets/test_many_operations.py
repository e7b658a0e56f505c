"""A thousand operations at once, from threads and clicks, against a model of the rules."""

from __future__ import annotations

import logging
import random
import threading
import time
from pathlib import Path

import pytest

from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.events import OperationObeyed, RunAdded, StateChanged
from rf_notebook.core.operations import CloneRun, DeleteRun, ResumeRun, StopRun, verb
from rf_notebook.core.receipt import Receipt
from rf_notebook.core.state import fold
from rf_notebook.engine.loop import Engine
from rf_notebook.engine.thread import EngineThread
from rf_notebook.store.lease import this_process
from rf_notebook.store.sqlite import SqliteStore
from rf_notebook.testing.fake_runner import FakeRunner, fake_config
from rf_notebook.testing.fake_session import FakeSession
from rf_notebook.widgets.panel import Panel

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*comm.*")]
THREADS, EACH = 8, 125
#: What the model allows, written down apart from the product's own table.
ALLOWED = {
    "stop": {"queued", "running"},
    "resume": {"stopped"},
    "delete": {"queued", "running", "stopped", "completed", "failed"},
    "clone": {"queued", "running", "stopped", "completed", "failed"},
}


class EngineSession(FakeSession):
    """A panel's session over a real engine."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.state)
        self.engine = engine
        self.futures = []

    def wait_for_change(self, seen, timeout):
        return self.engine.publisher.wait_for_change(seen, timeout)

    def operate(self, verb, runs, origin):
        kinds = {"stop": StopRun, "resume": ResumeRun, "delete": DeleteRun}
        made = [self.engine.mailbox.submit(kinds[verb](run_id=i), origin) for i in runs]
        self.futures.extend(made)
        return Receipt(made, list)


def test_none_is_lost_none_is_illegal_and_each_is_answered_soon(tmp_path: Path):
    store = SqliteStore(tmp_path / "experiment.sqlite")
    runner = FakeRunner(
        tmp_path, examples=400_000, num_chunks=2000, on_step=lambda _run, _step: time.sleep(0.002)
    )
    fence = store.acquire(this_process())
    log = logging.getLogger("test")
    thread = EngineThread(
        lambda wait: Engine(
            store, runner, fold(store.read()), fence=fence, wait_for_room=wait, log=log
        ),
        store,
        fence=fence,
        name="t",
        log=log,
    )
    engine = thread.engine
    runner.listener = engine.on_live
    engine.commit([RunAdded(run_id=i, config=fake_config(seed=i)) for i in range(1, 6)])
    thread.start()
    session = EngineSession(engine)
    panel = Panel(session, session)
    panel.start()
    waited: list[float] = []
    refusals: list[tuple[str, str]] = []
    obeyed: list[str] = []
    noted = threading.Lock()

    def alive() -> list[int]:
        """Runs that are not deleted, and one that is."""
        records = list(engine.state.runs.values())
        return [r.run_id for r in records if str(r.state) != "deleted"] + [records[0].run_id]

    def operation(rng: random.Random, run_id: int):
        if len(alive()) < 8:
            kind = CloneRun
        else:
            kind = rng.choices([StopRun, ResumeRun, DeleteRun, CloneRun], weights=[8, 10, 1, 3])[0]
        if kind is CloneRun:
            config = engine.state.record(run_id).config
            return CloneRun(run_id=run_id, config=config, edits={}, warm_start=rng.random() < 0.3)
        return kind(run_id=run_id)

    def user(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(EACH):
            asked = operation(rng, rng.choice(alive()))
            started = time.perf_counter()
            future = engine.mailbox.submit(asked)
            error = future.exception(timeout=30)
            with noted:
                waited.append(time.perf_counter() - started)
                if error is None:
                    obeyed.append(verb(asked))
                else:
                    assert isinstance(error, RFNotebookError), error
                    refusals.append((verb(asked), str(error)))

    clicks_over = threading.Event()

    def clicker() -> None:
        rng = random.Random(99)
        while not clicks_over.is_set() or len(session.futures) < 40:
            time.sleep(0.02)
            panel.table.selected = [rng.choice(alive())]
            word = rng.choices(["stop", "resume", "delete"], weights=[8, 8, 1])[0]
            if word == "delete" and len(alive()) < 8:
                continue
            panel.clicked(word)
            if word == "delete":
                panel.question.yes.click()

    users = [threading.Thread(target=user, args=(seed,)) for seed in range(THREADS)]
    clicking = threading.Thread(target=clicker)
    for one in [*users, clicking]:
        one.start()
    for one in users:
        one.join()
    clicks_over.set()
    clicking.join()
    clicked = [future.exception(timeout=30) for future in session.futures]
    panel.close()
    thread.end()

    recorded = [one.event for one in store.read()]
    done = [event for event in recorded if isinstance(event, OperationObeyed)]
    by_click = [event for event in done if event.origin == "button"]
    assert len(waited) == THREADS * EACH
    assert len(done) - len(by_click) == len(obeyed), "each that was acknowledged is recorded, once"
    assert len(by_click) == sum(error is None for error in clicked)
    assert len(by_click) > 20, "the clicks had their part"
    assert len(obeyed) > 300

    states: dict[int, str] = {}
    for event in recorded:
        if isinstance(event, RunAdded):
            states[event.run_id] = "queued"
        elif isinstance(event, StateChanged):
            states[event.run_id] = str(event.state)
        elif isinstance(event, OperationObeyed):
            word = verb(event.operation)
            assert states[event.operation.run_id] in ALLOWED[word], (
                event,
                states[event.operation.run_id],
            )
    rotating = {"queued": "in the rotation", "running": "in the rotation"}
    now = {run_id: str(record.state) for run_id, record in engine.state.runs.items()}
    assert {i: rotating.get(s, s) for i, s in states.items()} == {
        i: rotating.get(s, s) for i, s in now.items()
    }
    for word, sentence in refusals:
        if "has not trained a step" in sentence or "has no adapter" in sentence:
            continue
        told = next(part for part in sentence.split(": it is ")[1:] if part).split(",")[0]
        assert told not in ALLOWED[word], (word, sentence)
    waited.sort()
    # How soon depends on what else the machine does; that nothing is forgotten does not.
    assert waited[-1] < 30, f"{waited[-1]:.1f} s"
