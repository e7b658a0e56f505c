"""Who deletes the checkpoints that the record does not name any more?

A thread beside the turns: freeing gigabytes takes a while, and nothing waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rf_notebook.core.foreground import THREAD_PREFIX
from rf_notebook.core.ports import CommitObserver, CommitPoint
from rf_notebook.store import folders


class Removal:
    """Of one experiment's folder. The thread starts with the first path."""

    def __init__(self, folder: Path, observer: CommitObserver, log: logging.Logger) -> None:
        """Nothing is deleted yet.

        Args:
            folder: The experiment's.
            observer: For the crash tests.
            log: The experiment's.
        """
        self._folder = folder
        self._observer = observer
        self._log = log
        self._thread: ThreadPoolExecutor | None = None
        self._newest: Future[None] | None = None

    def remove(self, paths: Sequence[str]) -> None:
        """Delete folders of checkpoints; an error of it is logged and ends nothing.

        Args:
            paths: Relative to the experiment's folder; no committed event names them.
        """
        if not paths:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, f"{THREAD_PREFIX}removal")
        try:
            self._newest = self._thread.submit(self._remove, paths)
        except RuntimeError as error:  # the process ends; they are deleted when it is opened again
            self._log.info("checkpoints out of use stay for now: %s", error)

    def settle(self) -> None:
        """Wait until all is deleted."""
        if self._newest is not None:
            self._newest.result()
            self._newest = None

    def close(self) -> None:
        """Wait until all is deleted, and let the thread go."""
        self.settle()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            self._quietly(path)
        try:
            self._observer(CommitPoint.CHECKPOINTS_REMOVED)
        except BaseException as error:  # noqa: BLE001 - nothing depends on it
            self._log.error("after checkpoints were removed: %r", error)

    def _quietly(self, path: str) -> None:
        try:
            folders.remove_folder(self._folder, path)
        except BaseException as error:  # noqa: BLE001 - what stays is deleted when the experiment is opened again
            self._log.error("the checkpoint %s was not removed: %r", path, error)
