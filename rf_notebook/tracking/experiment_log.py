"""The experiment's log file: what happened, in lines of text, without secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from rf_notebook.core.events import (
    ChunkTrained,
    Event,
    Labelled,
    Noted,
    OperationObeyed,
    Recorded,
    RunFailed,
    StateChanged,
)
from rf_notebook.core.redaction import redact, visible


class ExperimentLog:
    """``experiment.log``; written while the experiment is open for training."""

    def __init__(self, path: Path, name: str) -> None:
        """No file is touched before ``open``.

        Args:
            path: The file's path.
            name: The experiment's name.
        """
        self.path = path
        # No child of the root logger: the user's logging configuration is theirs, and so is what it
        # shows.
        self.logger = logging.Logger(f"rf_notebook.{name}")

    def open(self) -> None:
        """Write from now on."""
        self.close()
        handler = _QuietFile(self.path, encoding="utf-8", delay=True)
        handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(message)s"))
        self.logger.addHandler(handler)

    def close(self) -> None:
        """Close the file."""
        for handler in list(self.logger.handlers):
            self.logger.removeHandler(handler)
            handler.close()

    def take(self, recorded: Iterable[Recorded]) -> None:
        """Write a line for each event."""
        for one in recorded:
            self.logger.info("%s", _line(one.event))


class _QuietFile(logging.FileHandler):
    """A line that a full disk does not take is lost.

    Logging would tell of it below whichever cell ran last.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(redact(super().format(record)))


def _line(event: Event) -> str:
    match event:
        case ChunkTrained():
            at = event.progress
            return f"run {event.run_id}: step {at.steps}/{at.total_steps}, chunk {at.chunks}/{at.total_chunks}"
        case StateChanged():
            return f"run {event.run_id}: {event.state}"
        case RunFailed():
            return f"run {event.run_id} failed: {event.failure.message}\n{event.failure.traceback}"
        case OperationObeyed():
            return f"obeyed: {type(event.operation).__name__} on run {event.operation.run_id} at step {event.steps}"
        case Labelled():
            called = "the experiment" if event.run_id is None else f"run {event.run_id}"
            tags = ", ".join(event.label.tags)
            return f"{called} is labelled: name {event.label.name!r}, tags {tags!r}"
        case Noted():
            return event.text
        case _:
            return type(event).__name__
