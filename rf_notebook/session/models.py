"""What do the models of runs write, and how do they leave the experiment?

Where nothing trains, from the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError, IllegalOperation
from rf_notebook.core.redaction import brief
from rf_notebook.core.runner import ModelOfRun
from rf_notebook.core.values import canonical_json
from rf_notebook.planning.fusion import Execution
from rf_notebook.session.stored import bring
from rf_notebook.store.adapters import check_patterns

if TYPE_CHECKING:
    from rf_notebook.core.state import RunRecord
    from rf_notebook.core.values import Json
    from rf_notebook.session.session import Session
    from rf_notebook.training.base_models import BaseModels
    from rf_notebook.training.trained_model import TrainedModel

#: The argument with which transformers runs code that comes with a model.
_TRUST = "trust_remote_code"

CreateModel = Callable[[dict[str, Any]], tuple[Any, Any]]


def load_model(session: Session, run_id: int, create_model: CreateModel | None) -> Any:
    """The model of a run's newest checkpoint.

    Args:
        session: The experiment, which trains nothing at the moment.
        run_id: The run.
        create_model: Loads its base model; the one of the launch, or the hub's classes, when None.

    Raises:
        IllegalOperation: for a run without a checkpoint.
        ConfigError: for a checkpoint that lies in a storage which the user has not named, and for a record
            that asks for code from the hub.
    """
    one = _model_of(session, run_id, create_model)
    return _trained(session, one, _base_models(session, create_model)).model


def write_model(
    session: Session, run_id: int, path: Path, *, merge: bool, create_model: CreateModel | None
) -> None:
    """Write the model of a run's newest checkpoint to a folder. See ``load_model``.

    Args:
        session: As there, like ``run_id`` and ``create_model``.
        run_id: The run.
        path: A new or empty folder.
        merge: Whether to write whole weights with the adapter folded in.
        create_model: The loader.
    """
    one, models = _model_of(session, run_id, create_model), _base_models(session, create_model)
    from rf_notebook.training.trained_model import export_model

    export_model(_trained(session, one, models, is_whole=merge), path, merge=merge)


def texts_from(
    session: Session,
    run_ids: Sequence[int],
    prompts: Sequence[str],
    settings: Mapping[str, Json],
    create_model: CreateModel | None,
) -> list[list[str]]:
    """What the models of runs write to prompts, run by run. See ``load_model``."""
    asked = [_model_of(session, run_id, create_model) for run_id in run_ids]
    started = session.state.started
    is_joint = started is not None and started.execution != Execution.EXACT
    models = _base_models(session, create_model)
    from rf_notebook.training.texts import CheckpointTexts

    texts = CheckpointTexts(models=models, folder=session.folder, objects=session.objects)
    with texts.in_a_cell(is_joint=is_joint) as waited_for:
        return waited_for.of(asked, prompts, settings)


def _base_models(session: Session, create_model: CreateModel | None) -> BaseModels:
    from rf_notebook.training import import_libraries

    import_libraries()
    from rf_notebook.training.base_models import BaseModels

    launched = None if session.launch is None else session.launch.create_model
    return BaseModels(create_model or launched)


def _trained(
    session: Session, one: ModelOfRun, models: BaseModels, *, is_whole: bool = False
) -> TrainedModel:
    from rf_notebook.training.trained_model import trained_model

    assert one.checkpoint is not None
    return trained_model(
        models, session.folder, session.objects, one.config, one.checkpoint, is_whole=is_whole
    )


def _model_of(session: Session, run_id: int, create_model: CreateModel | None) -> ModelOfRun:
    record = session.state.record(run_id)
    if session.launch is None and create_model is None:
        _check_runs_no_code(session, record)
    if record.newest is None:
        raise IllegalOperation(f"run {run_id} has no checkpoint yet; wait for its first chunk.")
    bring(session.folder, [record.newest], session.storage)
    if session.launch is None:
        check_patterns(session.folder / record.newest.path)
    return ModelOfRun(run_id=run_id, config=record.config, checkpoint=record.newest)


def _check_runs_no_code(session: Session, record: RunRecord) -> None:
    """Refuse what only a record asks for: it may be anybody's, and no cell of the user's has said so.

    Raises:
        ConfigError: with what can be done.
    """
    model = record.config.model
    for field in ("model_kwargs", "tokenizer_kwargs"):
        given = model.get(field)
        is_refused = isinstance(given, Mapping) and given.get(_TRUST) is False
        if _TRUST in canonical_json(given) and not is_refused:
            raise ConfigError(
                f"run {record.run_id} is recorded with {field}={{{_TRUST!r}: ...}}, which runs code of "
                f"{brief(model.get('model_name'))}. If you trust it, give create_model_fn=, or run the cell of "
                f"{session.name!r} that calls run_fit first."
            )
