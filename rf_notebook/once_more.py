"""An experiment once more: trained again, compared with another, and written for somebody else."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError, IllegalOperation, UnknownRun
from rf_notebook.core.redaction import private, private_json
from rf_notebook.core.state import ExperimentState
from rf_notebook.core.values import Json
from rf_notebook.engine.script import Script
from rf_notebook.jupyterlab.provenance import source_digest, spec_digest
from rf_notebook.planning.fusion import Execution
from rf_notebook.record import compare as comparing
from rf_notebook.record.against import standard_for, verdict_on_record
from rf_notebook.record.files import RECORD
from rf_notebook.record.record import parse_record
from rf_notebook.record.recording import record_of
from rf_notebook.registry import open_experiments, use
from rf_notebook.replay.export import Export, operation_lines, script_metadata, write_export, write_record
from rf_notebook.views.report import report_page
from rf_notebook.views.saved import static_bundle
from rf_notebook.views.series import ExperimentSeries

if TYPE_CHECKING:
    import pandas as pd

    from rf_notebook.experiment import Experiment


def replay(experiment: Experiment, name: str | None) -> Experiment:
    """See Experiment.replay."""
    launch, record = experiment._launch, experiment._state
    if launch is None:
        raise IllegalOperation(
            f"experiment {experiment.experiment_name!r} was not launched by this kernel, so its data and functions are "
            "not here; run its notebook's cells first, or replay its notebook."
        )
    experiment._check_alone()
    if not experiment._is_idle:
        raise IllegalOperation(
            f"experiment {experiment.experiment_name!r} is training; wait() for it or end() it first."
        )
    searched = [run.config for run in record.runs.values() if run.parent_id is None]
    if any(record.runs[run_id].parent_id is not None for run_id in range(1, len(searched) + 1)):
        raise IllegalOperation(
            f"experiment {experiment.experiment_name!r} cannot be replayed: configs were added to it after it had clones."
        )
    other = type(experiment)(name or f"{experiment.experiment_name}-replay", experiment_path=experiment.folder.parent)
    if other._state.started is not None:
        raise ConfigError(f"experiment {other.experiment_name!r} is recorded already; give replay() another name.")
    script = Script(comparing.script_of(record), _verdict_on(experiment))
    started = replace(launch.started, name=other.experiment_name, identity=uuid.uuid4().hex)
    again = replace(launch, configs=tuple(searched), started=started)
    with other._applying:
        other._begin(again, extend=False, take_over=False, script=script)
    open_experiments[other.folder.absolute()] = other
    return use(other)


def _verdict_on(original: Experiment) -> Callable[[ExperimentState], str]:
    """Step by step and bit for bit; joint steps, which round as their groups are, chunk by chunk within a tolerance."""
    before = original._state
    assert before.started is not None
    if before.started.execution != Execution.EXACT:
        written = parse_record(record_of(before))
        standard = standard_for(written, before.started.versions, written.spec.environment)
        return lambda state: verdict_on_record(written, state, standard)
    return lambda state: comparing.verdict(comparing.compare(before, state), original.experiment_name)


def compare(experiment: Experiment, other: Experiment) -> pd.DataFrame:
    """See Experiment.compare."""
    import pandas as pd

    experiment._refresh()
    other._refresh()
    rows = [
        {"run_id": one.run_id, "equal": one.difference is None, "steps": one.steps, "difference": one.difference}
        for one in comparing.compare(experiment._state, other._state)
    ]
    return pd.DataFrame(rows, columns=["run_id", "equal", "steps", "difference"])


def record(experiment: Experiment) -> dict[str, Json]:
    """See Experiment.record."""
    experiment._refresh()
    if experiment._state.started is None:
        raise IllegalOperation(
            f"experiment {experiment.experiment_name!r} has recorded nothing yet; call run_fit first."
        )
    return record_of(experiment._state)


def export(experiment: Experiment, path: Path) -> Path:
    """See Experiment.export_notebook."""
    written = record(experiment)
    state, name = experiment._state, experiment.experiment_name
    series = ExperimentSeries()
    series.update(state)
    cells = ["".join(lines) for lines in written["spec"]["cells"]]
    metadata: dict[str, Json] = {
        "version": 1,
        "experiment": name,
        "identity": written["identity"],
        "spec": spec_digest(state),
        "launch": source_digest(cells[-1]) if cells else "",
        "ran": [source_digest(cell) for cell in (script_metadata(written["spec"]["versions"]), *cells)],
        "best": _best(experiment),
    }
    shown = private_json(static_bundle(name, state, series, None))
    made = Export(
        name=name,
        record=written,
        shown=shown,
        metadata=metadata,
        best=metadata["best"],
        page=lambda: private(report_page(name, written, operation_lines(written), state, series)),
    )
    return write_export(path, made)


def keep_record(experiment: Experiment) -> None:
    """Write the record into the experiment's folder; what hinders that hinders nothing else."""
    if experiment._state.started is None:
        return
    try:
        write_record(experiment.folder, record_of(experiment._state))
    except OSError as error:
        experiment._log.logger.warning("%s was not written: %s", RECORD, error)


def _best(experiment: Experiment) -> dict[str, Json] | None:
    """Where the best run's adapter lies and its digest; the adapter itself is not in what is written."""
    try:
        run_id = experiment.best().id
    except (ConfigError, UnknownRun):
        return None
    checkpoints = experiment._state.record(run_id).checkpoints
    if not checkpoints:
        return None
    newest = checkpoints[-1].folder
    return {"run": run_id, "path": newest.path, "sha256": newest.sha256, "bytes": newest.bytes}
