"""Train an experiment of this process again, and compare two experiments."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError, IllegalOperation
from rf_notebook.core.redaction import visible_json
from rf_notebook.engine.script import Script
from rf_notebook.planning.fusion import Execution
from rf_notebook.record import compare as comparing
from rf_notebook.record.against import standard_for, verdict_on_record
from rf_notebook.record.record import parse_record
from rf_notebook.record.recording import record_of
from rf_notebook.session.opening import check_alone
from rf_notebook.session.registry import opened, session_of

if TYPE_CHECKING:
    import pandas as pd

    from rf_notebook.core.state import ExperimentState
    from rf_notebook.session.session import Session


def replay_again(session: Session, name: str | None) -> Session:
    """Train everything again under another name; see ``Experiment.replay``.

    Args:
        session: Launched by this process.
        name: The new experiment's name; "<this one>-replay" when None.

    Raises:
        IllegalOperation: when this process did not launch it, or it trains.
        ConfigError: when an experiment of the new name is recorded.
    """
    launch, state = session.launch, session.state
    if launch is None:
        raise IllegalOperation(
            f"experiment {session.name!r} was not launched by this kernel, so its data and functions are "
            "not here; run its notebook's cells first, or replay its notebook."
        )
    check_alone(session)
    if not session.is_idle:
        raise IllegalOperation(
            f"experiment {session.name!r} is training; wait() for it or end() it first."
        )
    searched = [run.config for run in state.runs.values() if run.parent_id is None]
    if any(state.runs[run_id].parent_id is not None for run_id in range(1, len(searched) + 1)):
        raise IllegalOperation(
            f"experiment {session.name!r} cannot be replayed: configs were added to it after it had clones."
        )
    other = session_of(name or f"{session.name}-replay", session.folder.parent, session.backend)
    if other.state.started is not None:
        raise ConfigError(
            f"experiment {other.name!r} is recorded already; give replay() another name."
        )
    started = replace(launch.started, name=other.name, identity=uuid.uuid4().hex)
    again = replace(launch, configs=tuple(searched), started=started)
    other.begin(again, script=Script(comparing.script_of(state), _verdict_on(session)))
    return opened(other)


def compared(one: Session, other: Session) -> pd.DataFrame:
    """Whether two experiments gave the same, figure by figure; see ``Experiment.compare``."""
    import pandas as pd

    one.refresh()
    other.refresh()
    rows = [
        {
            "run_id": found.run_id,
            "equal": found.difference is None,
            "steps": found.steps,
            "difference": found.difference,
        }
        for found in comparing.compare(one.state, other.state)
    ]
    return pd.DataFrame(visible_json(rows), columns=["run_id", "equal", "steps", "difference"])


def _verdict_on(original: Session) -> Callable[[ExperimentState], str]:
    """Step by step and bit for bit.

    Joint steps, which round as their groups are, chunk by chunk within a tolerance.
    """
    before = original.state
    assert before.started is not None
    if before.started.execution != Execution.EXACT:
        written = parse_record(record_of(before))
        standard = standard_for(written, before.started.versions, written.spec.environment)
        return lambda state: verdict_on_record(written, state, standard)
    return lambda state: comparing.verdict(comparing.compare(before, state), original.name)
