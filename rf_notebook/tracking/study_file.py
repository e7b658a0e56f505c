"""How can Optuna's own tools look at a search?

Its studies are copied to an SQLite file, by a thread of its own.

The file is never read back: a study follows from the experiment's log, and the file is written again
by each kernel.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_LOOK_SECONDS = 2.0


class StudyFile:
    """Follows studies that change in memory.

    ``notify`` may be called by any thread and costs nothing.
    """

    def __init__(
        self, path: Path, studies: Callable[[], Mapping[str, Any]], *, log: logging.Logger
    ) -> None:
        """Nothing is written before ``start``.

        Args:
            path: The file's path.
            studies: Gives the studies as they are now, by name.
            log: The experiment's.
        """
        self._path, self._studies, self._log = path, studies, log
        self._changed, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._main, name=f"rf-optuna-{path.parent.name}", daemon=True
        )
        self._storage: Any = None
        self._written: dict[str, _Written] = {}
        self._complained = False
        self._is_whole = False
        """Whether the file holds everything."""

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def notify(self, _recorded: Sequence[Any]) -> None:
        """Something may have changed."""
        self._changed.set()

    def close(self, timeout: float) -> bool:
        """Write what is new, for at most this many seconds, and end.

        Returns whether all was written.
        """
        self._ending.set()
        self._changed.set()
        self._thread.join(timeout)
        return not self._thread.is_alive() and self._is_whole

    def _main(self) -> None:
        is_last = False
        while not is_last:
            self._changed.wait(_LOOK_SECONDS)
            self._changed.clear()
            is_last = self._ending.is_set()
            try:
                self._is_whole = False
                self._write()
                self._is_whole = True
            except Exception as error:  # noqa: BLE001 - a mirror takes nothing along
                self._storage = None  # next time from the beginning
                if not self._complained:
                    self._complained = True
                    self._log.warning("optuna.db cannot be written: %s", error)
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()

    def _write(self) -> None:
        if self._storage is None:
            from optuna.storages import RDBStorage
            from sqlalchemy import URL

            self._path.unlink(missing_ok=True)
            self._written.clear()
            self._storage = RDBStorage(
                str(URL.create("sqlite", database=str(self._path)))
            )  # with % and ? escaped
        for name, study in self._studies().items():
            known = self._written.get(name)
            if known is None or known.study is not study:
                if known is not None:
                    self._storage.delete_study(known.id)
                made = self._storage.create_new_study([*study.directions], name)
                known = self._written[name] = _Written(study, made, self._storage)
            known.follow()


class _Written:
    """One study in the file."""

    def __init__(self, study: Any, study_id: int, storage: Any) -> None:
        self.study, self.id = study, study_id
        self._storage = storage
        self._trials: list[tuple[int, tuple[Any, ...]]] = []
        """Of each trial: its id in the file, and what was written last."""

    def follow(self) -> None:
        """Write what is new in the study."""
        for trial in self.study.get_trials(deepcopy=True):
            now = (
                trial.state,
                trial.values,
                len(trial.intermediate_values),
                len(trial.params),
                len(trial.user_attrs),
            )
            if trial.number == len(self._trials):
                self._trials.append(
                    (self._storage.create_new_trial(self.id, template_trial=trial), now)
                )
            elif self._trials[trial.number][1] != now:
                written, before = self._trials[trial.number]
                if not before[0].is_finished():
                    self._update(written, trial)
                self._trials[trial.number] = (written, now)

    def _update(self, written: int, trial: Any) -> None:
        known = self._storage.get_trial(written)
        for name, value in trial.params.items():
            if name not in known.params:
                distribution = trial.distributions[name]
                internal = distribution.to_internal_repr(value)
                self._storage.set_trial_param(written, name, internal, distribution)
        for step, value in trial.intermediate_values.items():
            if step not in known.intermediate_values:
                self._storage.set_trial_intermediate_value(written, step, value)
        for name, value in trial.user_attrs.items():
            self._storage.set_trial_user_attr(written, name, value)
        if trial.state.is_finished():
            self._storage.set_trial_state_values(written, trial.state, trial.values)
