"""An experiment whose record is damaged says so, shows what is sure, and continues from there when asked."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from rf_notebook import Experiment
from rf_notebook.core.errors import IllegalOperation, RecordDamaged, StoreError
from rf_notebook.core.events import StateChanged
from rf_notebook.core.run import RunState
from rf_notebook.session.registry import forget_all
from rf_notebook.store.chain import insert, next_number
from rf_notebook.store.codec import encode
from rf_notebook.views.standing import standing
from tests.api import conftest
from tests.api.world import curve, fit, two


@pytest.fixture
def recorded(new):
    """The record of two runs that are over."""
    experiment = fit(new(), two())
    experiment.end()
    experiment.session.store.close()
    forget_all()
    return experiment.session.folder / "experiment.sqlite"


def damage(path, nth):
    """Change a figure of the nth trained chunk; returns the number of its entry."""
    with closing(sqlite3.connect(path)) as connection, connection:
        query = "SELECT seq, payload FROM events WHERE kind = 'ChunkTrained' ORDER BY seq"
        seq, payload = connection.execute(query).fetchall()[nth]
        changed = payload.replace('"train_loss":', '"train_loss":1', 1).replace(
            '"loss":', '"loss":1', 1
        )
        assert changed != payload
        connection.execute("UPDATE events SET payload = ? WHERE seq = ?", (changed, seq))
    return seq


def test_it_is_told_where_it_is_opened_and_looked_at_and_nothing_is_written(recorded, new):
    seq = damage(recorded, 5)
    before = recorded.read_bytes()
    with pytest.warns(
        UserWarning,
        match=rf"entry {seq} is not what was written; entries 1 to {seq - 1} are sure.*repair\(\)",
    ) as told:
        experiment = new()
    assert [one.filename for one in told] == [conftest.__file__], "where it was constructed"
    assert f"entry {seq}" in repr(experiment)
    assert sum(len(curve(experiment, run.id)) > 0 for run in experiment.runs) == 2
    assert (
        "record is damaged" in standing(experiment.session.state, experiment.session.status()).words
    )
    for write in (
        lambda: fit(experiment, two()),
        lambda: experiment.label(1, name="best").result(),
    ):
        with pytest.raises(
            RecordDamaged, match=r"repair\(\) continues from them and keeps the damaged file"
        ):
            write()
    assert recorded.read_bytes() == before


def test_repaired_it_continues_to_the_same_figures(recorded, new, backend, tmp_path):
    whole = Experiment("test", experiment_path=tmp_path, runner=backend)
    original = [curve(whole, run_id) for run_id in (1, 2)]
    whole.session.store.close()
    forget_all()
    damaged = damage(recorded, 5)
    contents = recorded.read_bytes()
    with pytest.warns(UserWarning, match="damaged"):
        experiment = new()
    aside = experiment.repair()
    assert aside.read_bytes() == contents
    assert "damaged" not in repr(experiment)
    assert fit(experiment, two()).wait(60)
    assert [curve(experiment, run_id) for run_id in (1, 2)] == original
    assert any(
        f"damaged after entry {damaged - 1}" in note.event.text
        for note in experiment.session.state.notes
    )
    experiment.end()
    assert experiment.repair() is None


def test_an_event_about_a_run_that_is_not_there_is_damage(recorded, new):
    kind, payload = encode(StateChanged(run_id=99, state=RunState.STOPPED))
    with closing(sqlite3.connect(recorded)) as connection, connection:
        seq = next_number(connection)
        insert(connection, [(seq, 0.0, kind, 1, payload)])
    with pytest.warns(UserWarning, match=rf"entry {seq}: there is no run 99"):
        experiment = new()
    assert len(experiment.runs) == 2
    experiment.repair()
    forget_all()
    assert len(new().runs) == 2


def test_where_nothing_is_sure_nothing_is_continued(recorded, new):
    with closing(sqlite3.connect(recorded)) as connection, connection:
        connection.execute("UPDATE events SET at = 0 WHERE seq = 1")
    with pytest.warns(UserWarning, match="nothing before it"):
        experiment = new()
    with pytest.raises(IllegalOperation, match=r"take .* from a backup"):
        experiment.repair()


@pytest.mark.parametrize("how", ["empty", "gone"])
def test_checkpoints_without_their_record_are_not_taken_for_a_new_experiment(recorded, new, how):
    (recorded.parent / "runs" / "1").mkdir(parents=True, exist_ok=True)
    if how == "empty":
        recorded.write_bytes(b"")
    else:
        recorded.unlink()
    with pytest.raises(StoreError, match=rf"is {how}, and checkpoints lie beside it"):
        fit(new(), two())
    assert (recorded.parent / "runs").exists()
