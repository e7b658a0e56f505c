"""How does an experiment of this process travel? As its record, or in a file for somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError, IllegalOperation, UnknownRun
from rf_notebook.core.redaction import private, private_json
from rf_notebook.record.record import parse_record
from rf_notebook.record.recording import record_of
from rf_notebook.replay.export import Export, operation_lines, script_metadata, write_export
from rf_notebook.results.best import best_run
from rf_notebook.session.cells import source_digest, spec_digest
from rf_notebook.views.report import report_page
from rf_notebook.views.saved import static_bundle
from rf_notebook.views.series import ExperimentSeries

if TYPE_CHECKING:
    from rf_notebook.core.values import Json
    from rf_notebook.session.session import Session


def record_now(session: Session) -> dict[str, Json]:
    """The experiment as JSON; see ``Experiment.record``.

    Raises:
        IllegalOperation: when nothing is recorded yet.
    """
    session.refresh()
    if session.state.started is None:
        raise IllegalOperation(
            f"experiment {session.name!r} has recorded nothing yet; call run_fit first."
        )
    return record_of(session.state)


def export_to(session: Session, path: Path) -> Path:
    """Write the experiment for somebody else; see ``Experiment.export_notebook``.

    Raises:
        IllegalOperation: when nothing is recorded yet.
        ConfigError: when the path is there already.
    """
    record = parse_record(record_now(session), is_own=True)
    state, name = session.state, session.name
    series = ExperimentSeries()
    series.update(state)
    cells, best = record.spec.cells, _best(session)
    metadata: dict[str, Json] = {
        "version": 1,
        "experiment": name,
        "identity": record.identity,
        "spec": spec_digest(state),
        "launch": source_digest(cells[-1]) if cells else "",
        "ran": [source_digest(cell) for cell in (script_metadata(record.spec.versions), *cells)],
        "best": best,
    }
    shown = private_json(static_bundle(name, state, series, None))
    made = Export(
        name=name,
        record=record,
        shown=shown,
        metadata=metadata,
        best=best,
        page=lambda: private(report_page(name, record, operation_lines(record), state, series)),
    )
    return write_export(path, made)


def _best(session: Session) -> dict[str, Json] | None:
    """Where the best run's adapter lies and its digest.

    The adapter itself is not in what is written.
    """
    try:
        run_id = best_run(session.state, None)
    except (ConfigError, UnknownRun):
        return None
    checkpoints = session.state.record(run_id).checkpoints
    if not checkpoints:
        return None
    newest = checkpoints[-1].folder
    return {"run": run_id, "path": newest.path, "sha256": newest.sha256, "bytes": newest.bytes}
