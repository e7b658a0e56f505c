"""An experiment all of whose texts try to be something else than text."""

from __future__ import annotations

from rf_notebook.core.events import (
    Labelled,
    Noted,
    OperationObeyed,
    RunAdded,
    RunFailed,
    SamplesWritten,
)
from rf_notebook.core.labels import Label
from rf_notebook.core.operations import CloneRun, StopRun
from rf_notebook.core.run import Failure, Generation
from rf_notebook.core.state import ExperimentState
from rf_notebook.testing.fake_session import config, points, recorded_state, started, trained

TEXTS = (
    "<script>window.pwned=1</script>",
    '<img src=x onerror="window.pwned=1">',
    "javascript:window.pwned=1",
    "\u202eright to left\u202c",
    "long " + "A" * 10_000,
    "$\\alpha$ %{x} </text></svg><svg onload=window.pwned=1>",
    "</style></title>'\"&lt;b&gt;<a href='javascript:window.pwned=1'>link</a>",
)


def hostile_state() -> ExperimentState:
    events = [started(TEXTS[0])]
    for run_id, text in enumerate(TEXTS, start=1):
        made = config(learning_rate=run_id / 1000, run_name=text, r=run_id)
        events.append(RunAdded(run_id=run_id, config=made))
        events.append(trained(run_id, points(run_id, 20, metrics=("loss", "eval_loss", *TEXTS))))
        events.append(
            SamplesWritten(
                run_id=run_id,
                steps=20,
                samples=80,
                generations=tuple(Generation(prompt=t, text=t) for t in TEXTS),
            )
        )
        events.append(Noted(text=text, run_id=run_id))
        label = Label(name=text, tags=TEXTS, note=text)
        events.append(Labelled(run_id=run_id, label=label))
    label = Label(tags=TEXTS, note="\n".join(TEXTS))
    events.append(Labelled(run_id=None, label=label))
    stop = StopRun(run_id=1)
    clone = CloneRun(
        run_id=1, config=config(run_name=TEXTS[1]), edits={TEXTS[1]: TEXTS[0], "x": list(TEXTS)}
    )
    events.append(OperationObeyed(operation=stop, steps=10, samples=40, origin=TEXTS[0]))
    events.append(OperationObeyed(operation=clone, steps=10, samples=40, origin="button"))
    clone_id = len(TEXTS) + 1
    events.append(RunAdded(run_id=clone_id, config=clone.config, parent_id=1, edits=clone.edits))
    events.append(trained(clone_id, points(clone_id, 20)))
    everything = "\n".join(TEXTS)
    events.append(RunFailed(run_id=2, failure=Failure(message=everything, traceback=everything)))
    return recorded_state(events)
