"""How does an experiment continue whose record is damaged?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rf_notebook.core.errors import IllegalOperation, ReadOnlyExperiment
from rf_notebook.core.events import Noted
from rf_notebook.session.waiting import refresh_display, write_record_file
from rf_notebook.store.lease import read_only_sentence, this_process

if TYPE_CHECKING:
    from pathlib import Path

    from rf_notebook.session.session import Session


def repair(session: Session) -> Path | None:
    """Set a damaged record aside, and begin one with its entries before the damage.

    Returns:
        Where the damaged file is now; None when the record is whole.

    Raises:
        IllegalOperation: when nothing before the damage is left.
        ReadOnlyExperiment: when another process trains the experiment.
        StoreError: when there is no room.
    """
    session.refresh()
    store = session.store
    if not session.damage or store is None:
        return None
    if session.state.started is None:
        raise IllegalOperation(session.damage)
    holder = store.living_holder()
    if holder is not None and holder != this_process():
        raise ReadOnlyExperiment(read_only_sentence(holder))
    last = session.state.last_seq
    aside = store.repair(last)
    session.damage = ""
    fence = store.acquire(this_process())
    try:
        told = f"The record was damaged after entry {last}, and continues from there; what it was is in {aside.name}."
        store.append([Noted(text=told)], fence)
    finally:
        store.release(fence)
    session.refresh()
    session.signal.changed()
    write_record_file(session)
    refresh_display(session)
    return aside
