"""What the state would be is not what it is."""

from __future__ import annotations

from rf_notebook.core.events import ChunkTrained, Noted, Recorded, RunAdded, StateChanged
from rf_notebook.core.run import MetricPoint, Progress, RunState
from rf_notebook.core.state import LiveRun, fold
from rf_notebook.testing.fake_runner import fake_config


def point(step: int) -> MetricPoint:
    return MetricPoint(step=step, samples=step, epoch=0.0, chunk=1, metrics={"loss": 1.0})


def trained(steps: int, chunks: int) -> ChunkTrained:
    progress = Progress(steps=steps, samples=steps, chunks=chunks, total_chunks=4)
    return ChunkTrained(
        run_id=1,
        progress=progress,
        points=tuple(point(step) for step in range(1, steps + 1)),
        checkpoint=None,
        train_seconds=1.0,
        overhead_seconds=0.0,
    )


def test_it_holds_the_events_and_the_state_itself_none_of_them():
    state = fold([Recorded(seq=1, at=0.0, event=RunAdded(run_id=1, config=fake_config()))])
    live = state.live[1] = LiveRun(Progress(steps=6), [point(step) for step in range(1, 7)])
    later = state.after(
        [trained(4, 1), StateChanged(run_id=1, state=RunState.STOPPED), Noted(text="so it goes")]
    )
    record = later.record(1)
    assert (record.state, record.progress.chunks) == (RunState.STOPPED, 1)
    assert [turn.progress.steps for turn in later.turns] == [4]
    assert (later.last_seq, len(later.notes)) == (4, 1)
    assert (state.record(1).state, state.record(1).progress.chunks) == (RunState.QUEUED, 0)
    assert (state.turns, state.notes, state.last_seq) == ([], [], 1)
    assert state.live == {1: live}
    assert [one.step for one in live.points] == [1, 2, 3, 4, 5, 6]
