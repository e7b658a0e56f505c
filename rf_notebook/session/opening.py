"""How does an experiment begin? From the constructor's arguments and those of ``run_fit``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.automation.policies import Policies
from rf_notebook.automl.concrete import apply_edits
from rf_notebook.core.errors import ConfigError, IllegalOperation, RFNotebookError, StoreError
from rf_notebook.engine.autopilot import Autopilot
from rf_notebook.session.arguments import FitArguments, check_num_gpus, check_storage
from rf_notebook.session.cells import sources_now
from rf_notebook.session.preparing import prepare
from rf_notebook.session.registry import folder_of, open_sessions, opened, session_of
from rf_notebook.session.stage import current_stage
from rf_notebook.session.waiting import wait
from rf_notebook.store.plain_files import path_given
from rf_notebook.store.storage_place import known_place

if TYPE_CHECKING:
    from rf_notebook.automation.optuna_policy import OptunaPolicy
    from rf_notebook.automation.policy import Policy
    from rf_notebook.session.backend import Backend
    from rf_notebook.session.session import Session

_NAME = re.compile(r"[\w][\w .+-]{0,99}")


def open_session(
    name: Any,
    path: str | Path | None,
    *,
    mode: Any,
    num_cpus: Any,
    num_gpus: Any,
    storage: Any = None,
    runner: Backend | None = None,
) -> Session:
    """The session behind ``Experiment(...)``, whose arguments these are.

    Raises:
        ConfigError: for arguments that an experiment cannot have.
    """
    if mode != "fit":
        raise ConfigError(f"Experiment(mode={mode!r}) is not possible; use mode='fit'.")
    check_num_gpus("Experiment", num_gpus)
    if num_cpus is not None:
        warnings.warn(
            f"Experiment(num_cpus={num_cpus!r}) has no effect: training uses torch's threads; torch.set_num_threads sets them.",
            stacklevel=3,
        )
    name, path = _staged(name, path)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith("."):
        raise ConfigError(
            f"Experiment(experiment_name={name!r}): a name has up to 100 letters, digits, spaces and . _ + - "
            "and begins with a letter, digit or _."
        )
    if path is not None:
        path = path_given("Experiment(experiment_path)", path)
    try:
        session = session_of(name, path, runner)
    except OSError as error:
        if isinstance(error, RFNotebookError):
            raise
        raise StoreError(
            f"{folder_of(name, path)} cannot be read: {error.strerror or error}."
        ) from error
    if session.damage:
        warnings.warn(session.damage, stacklevel=3)
    session.num_gpus = num_gpus
    session.storage = check_storage("Experiment", storage)
    return session


def open_here(name: Any, path: str | Path | None) -> Session | None:
    """The session of this name when it trains in this process."""
    name, path = _staged(name, path)
    if not isinstance(name, str) or not isinstance(path, str | PathLike | None):
        return None  # told where it is opened
    present = open_sessions.get(folder_of(name, path))
    return present if present is not None and present.is_training else None


def fit(
    session: Session,
    given: FitArguments,
    *,
    extend: bool,
    policy: Policy | None,
    take_over: bool,
    before_import: Callable[[], None],
) -> bool:
    """Begin to train, or continue; when the experiment trains already, take in what is new.

    Args:
        session: The experiment.
        given: The arguments that make the runs.
        extend: See ``Experiment.run_fit``, like the next two.
        policy: Who decides at chunk boundaries.
        take_over: Whether to take the experiment from another kernel.
        before_import: Called before the libraries are imported, which takes seconds.

    Returns:
        Whether it began; False when it trained already.

    Raises:
        ConfigError: what cannot work, before any model is loaded.
        ReadOnlyExperiment: when another kernel trains this experiment.
    """
    stage, sources = current_stage(), sources_now()
    if stage is None:
        given = _with_storage(session, given)
    autopilot = None if policy is None or stage is not None else autopilot_of(session, policy)
    launch = prepare(
        session.folder,
        session.name,
        given,
        known=session.objects,
        backend=session.backend,
        cells=() if sources is None else sources.cells,
        before_import=before_import,
        is_replay=stage is not None,
        at_work=session.launch if session.is_training else None,
    )
    told = list(launch.warnings)
    if autopilot is not None:
        has_eval = launch.data.evaluation is not None
        told += autopilot.check(launch.configs, evaluates=has_eval, sources=launch.functions())
    for text in told:
        warnings.warn(text, stacklevel=3)
    studies: list[OptunaPolicy] = [] if stage is not None else launch.studies(lambda: wait(session))
    if studies:
        policies = [*studies] if autopilot is None else [autopilot.policy, *studies]
        autopilot = autopilot_of(session, policies[0] if len(policies) == 1 else Policies(policies))
    if session.is_training:
        session.attach(launch, extend=extend, autopilot=autopilot, studies=studies)
        assert session.launch is not None
        now, asked = (sorted(one.name for one in of.devices) for of in (session.launch, launch))
        if asked != now:
            warnings.warn(
                f"run_fit(devices=...) has no effect while the experiment trains: it does so on {_listed(now)}. "
                f"After experiment.cancel_current() the same cell continues it on {_listed(asked)}.",
                stacklevel=3,
            )
        if launch.trackers != session.launch.trackers:
            warnings.warn(
                f"run_fit(track=...) has no effect while the experiment trains: its figures go to {_listed(session.launch.trackers)}. "
                f"After experiment.cancel_current() the same cell sends them to {_listed(launch.trackers)}.",
                stacklevel=3,
            )
        return False
    script = None
    if stage is not None:
        launch = stage.as_recorded(launch)
        script = stage.script_for(launch)
        sources = None  # a replay's cells are not this notebook's
    session.begin(
        launch,
        extend=extend,
        take_over=take_over,
        sources=sources,
        script=script,
        autopilot=autopilot,
        studies=studies,
    )
    opened(session)
    return True


def check_alone(session: Session) -> None:
    """Refuse to train alongside another experiment of this process.

    Raises:
        IllegalOperation: naming the one that trains.
    """
    for other in list(open_sessions.values()):
        if other is not session and other.is_training and not other.is_idle:
            raise IllegalOperation(
                f"experiment {other.name!r} is training in this kernel; wait() for it or end() it first."
            )


def autopilot_of(session: Session, policy: Any) -> Autopilot:
    """A policy at work on an experiment.

    Raises:
        ConfigError: when it is not a policy.
    """
    return Autopilot(policy, lambda config, edits: apply_edits(config, edits, session.objects))


def _with_storage(session: Session, given: FitArguments) -> FitArguments:
    """The arguments with the storage that this call or the constructor has named.

    Raises:
        ConfigError: when nothing would be written there.
    """
    if given.storage is not None:
        if given.cluster is None and known_place(session.folder) is None:
            raise ConfigError(
                f"run_fit(storage={given.storage!r}) is about a cluster's checkpoints; give cluster=, too. Here they are "
                "written to the experiment's folder."
            )
        session.storage = given.storage
    if given.cluster is None:
        return given
    return replace(given, cluster=replace(given.cluster, storage=session.storage))


def _staged(name: Any, path: str | Path | None) -> tuple[Any, str | Path | None]:
    """The name and the place that a cell asked for, or those of the replay for which it is run."""
    stage = current_stage()
    return (name, path) if stage is None else stage.place_of(name)


def _listed(devices: Sequence[str]) -> str:
    return ", ".join(devices) or "the kernel"
