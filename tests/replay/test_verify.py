"""What is looked at in a record.

Chunks that logged other metrics than the last one are no contradiction.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rf_notebook.core.events import ExperimentStarted
from rf_notebook.core.run import MetricPoint, Progress, RunState, StoredFolder
from rf_notebook.core.state import ExperimentState, RunRecord
from rf_notebook.record.files import Shared
from rf_notebook.record.record import parse_record
from rf_notebook.record.recording import record_of
from rf_notebook.record.verify import verify
from rf_notebook.testing.fake_runner import fake_config

STARTED = ExperimentStarted(
    name="any",
    identity="ab",
    num_chunks=2,
    seed=1,
    data_seed=None,
    execution="exact",
    keep="best",
    data={},
    versions={},
)


def record_with(chunks):
    """Of one completed run; a chunk is its metrics by step."""
    points, saved = [], []
    for logged in chunks:
        points += [
            MetricPoint(step=s, samples=s, epoch=0.0, chunk=1, metrics=m) for s, m in logged.items()
        ]
        saved.append(
            StoredFolder(
                path=f"runs/1/{max(logged)}",
                sha256=str(max(logged)),
                steps=max(logged),
                samples=1,
                bytes=1,
            )
        )
    state = ExperimentState()
    state.started = STARTED
    state.runs[1] = RunRecord(
        run_id=1, config=fake_config(learning_rate=0.1, batch_size=2, seed=0), parent_id=None, edits={}, warm_start=None,
        state=RunState.COMPLETED, progress=Progress(steps=saved[-1].steps, samples=9), points=(tuple(points),), saved=tuple(saved),
    )  # fmt: skip
    return record_of(state)


def wrong(written):
    return [
        f.text
        for f in verify(Shared(Path("record.json"), parse_record(written), None, ()))
        if not f.is_right
    ]


def test_a_chunk_without_an_evaluation_is_no_contradiction():
    logs = {"loss": 2.0, "grad_norm": 1.0, "learning_rate": 0.5}
    stopped = {1: logs, 2: {**logs, "eval_loss": 3.0}}
    inside = {3: {**logs, "learning_rate": 0.4}}  # stopped before its evaluation, after a log
    end = {4: {**logs, "learning_rate": 0.1}, 5: {"eval_loss": 2.5, "loss": 1.5}}
    assert wrong(record_with([stopped, inside, end])) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda r: r["results"][0]["metrics"].update(loss=9),
            "the last loss of run 1 is 9.0 in its results and 1.5 in its",
        ),
        (lambda r: r["results"][0].update(steps=3), "run 1 trained 3 steps, but has a chunk of 5"),
        (
            lambda r: r["results"][0]["chunks"].reverse(),
            "the chunks of run 1 do not follow one another",
        ),
        (lambda r: r["results"][0].update(run=2), "the runs are numbered [2], not 1, 2, 3, ..."),
        (
            lambda r: r["curves"]["loss"]["1"]["values"].append(7),
            "the curve of 'loss' of run 1 belongs to no run",
        ),
        (
            lambda r: r["spec"]["configs"].append(r["spec"]["configs"][0]),
            "2 configs and 0 clones make 2 runs, but 1 gave",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, sentence):
    written = record_with([{2: {"loss": 2.0}}, {5: {"loss": 1.5}}])
    change(written)
    assert any(text.startswith(sentence) for text in wrong(written)), wrong(written)
