"""What do the models of runs write, and how do they leave the experiment?

Where nothing trains, from the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import IllegalOperation
from rf_notebook.core.runner import ModelOfRun
from rf_notebook.planning.fusion import Execution
from rf_notebook.session.stored import bring

if TYPE_CHECKING:
    from rf_notebook.core.values import Json
    from rf_notebook.session.session import Session
    from rf_notebook.training.base_models import BaseModels
    from rf_notebook.training.trained_model import TrainedModel

CreateModel = Callable[[dict[str, Any]], tuple[Any, Any]]


def load_model(session: Session, run_id: int, create_model: CreateModel | None) -> Any:
    """The model of a run's newest checkpoint.

    Args:
        session: The experiment, which trains nothing at the moment.
        run_id: The run.
        create_model: Loads its base model; the one of the launch, or the hub's classes, when None.

    Raises:
        IllegalOperation: for a run without a checkpoint.
        ConfigError: for a checkpoint that lies in a storage which the user has not named.
    """
    return _trained(session, run_id, _base_models(session, create_model)).model


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
    models = _base_models(session, create_model)
    from rf_notebook.training.trained_model import export_model

    export_model(_trained(session, run_id, models, is_whole=merge), path, merge=merge)


def texts_from(
    session: Session,
    run_ids: Sequence[int],
    prompts: Sequence[str],
    settings: Mapping[str, Json],
    create_model: CreateModel | None,
) -> list[list[str]]:
    """What the models of runs write to prompts, run by run. See ``load_model``."""
    asked = [_model_of(session, run_id) for run_id in run_ids]
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
    session: Session, run_id: int, models: BaseModels, *, is_whole: bool = False
) -> TrainedModel:
    from rf_notebook.training.trained_model import trained_model

    one = _model_of(session, run_id)
    assert one.checkpoint is not None
    return trained_model(
        models, session.folder, session.objects, one.config, one.checkpoint, is_whole=is_whole
    )


def _model_of(session: Session, run_id: int) -> ModelOfRun:
    record = session.state.record(run_id)
    if record.newest is None:
        raise IllegalOperation(f"run {run_id} has no checkpoint yet; wait for its first chunk.")
    bring(session.folder, [record.newest], session.storage)
    return ModelOfRun(run_id=run_id, config=record.config, checkpoint=record.newest)
