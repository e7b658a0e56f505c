"""How is an experiment labelled while nothing trains?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rf_notebook.core.errors import IllegalOperation
from rf_notebook.session.waiting import refresh_display, write_record_file
from rf_notebook.store.lease import this_process

if TYPE_CHECKING:
    from rf_notebook.engine.requests import LabelRuns
    from rf_notebook.session.session import Session


def label_at_rest(session: Session, asked: LabelRuns) -> None:
    """Record labels; the lease is held only meanwhile.

    Raises:
        IllegalOperation: when nothing is recorded yet.
        RecordDamaged: when the record is damaged.
        ReadOnlyExperiment: when another kernel trains this experiment.
    """
    session.refresh()
    session.check_sure()
    if session.store is None or session.state.started is None:
        raise IllegalOperation(
            f"experiment {session.name!r} has no runs yet; call run_fit first, then label them."
        )
    fence = session.store.acquire(this_process())
    try:
        session.refresh()
        session.store.append(asked.events(session.state), fence)
    finally:
        session.store.release(fence)
    session.refresh()
    session.signal.changed()
    write_record_file(session)
    refresh_display(session)
