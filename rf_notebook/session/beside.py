"""Which experiments lie beside one, and in what do they differ from it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.session.registry import recorded_experiments, session_of

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.record.differences import Difference
    from rf_notebook.record.record import Record
    from rf_notebook.session.session import Session


def names_beside(session: Session) -> list[str]:
    """Names of the other experiments that are recorded in the same folder."""
    beside = recorded_experiments(session.folder.parent)
    return [name for name in beside if name != session.folder.name]


def differences_from(session: Session, name: str) -> list[Difference]:
    """In what an experiment, and then another one, differ.

    Args:
        session: The first.
        name: Of the other, which lies beside it.

    Raises:
        ConfigError: when there is none of this name, or one of the two has not begun.
        StoreError: when its record cannot be read.
    """
    from rf_notebook.record.differences import differences

    if name not in names_beside(session):
        raise ConfigError(f"no experiment {name!r:.100} is recorded in {session.folder.parent}.")
    other = session_of(name, session.folder.parent)
    return differences(_record(session.state, session.name), _record(other.recent_state, name))


def _record(state: ExperimentState, name: str) -> Record:
    from rf_notebook.record.record import parse_record
    from rf_notebook.record.recording import record_of

    if state.started is None:
        raise ConfigError(f"experiment {name!r} has no runs yet.")
    return parse_record(record_of(state), is_own=True)
