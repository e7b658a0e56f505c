"""Which errors can reach a user?

    RFNotebookError
    ├── ConfigError         (ValueError)       an argument or config that cannot work
    ├── IllegalOperation    (RuntimeError)     an operation that the run's state does not allow
    ├── UnknownRun          (LookupError)      a run id that the experiment does not have
    ├── ReadOnlyExperiment  (PermissionError)  another kernel is writing this experiment
    ├── StoreError          (OSError)          the experiment's record cannot be read or written
    │   ├── LeaseLost                          another kernel took the experiment over
    │   ├── RecordDamaged                      entries of the record are not what was written
    │   └── StorageFull                        no room on the disk
    └── CheckpointDamaged   (OSError)          a checkpoint is not what was hashed when it was written

Rule for adding one: a caller must be able to do something different on catching it; otherwise use a
sentence in an existing class. Every message says what is wrong, with the values, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rf_notebook.core.redaction import visible


class RFNotebookError(Exception):
    """Any error that rf_notebook raises on purpose; nothing hides in its text, whatever it quotes."""

    def __str__(self) -> str:
        return visible(super().__str__())


class ConfigError(RFNotebookError, ValueError):
    """An argument, config or data set that cannot work."""


class IllegalOperation(RFNotebookError, RuntimeError):  # noqa: N818 - reads as a sentence where it is caught
    """An operation that the state of the run or of the experiment does not allow."""


class UnknownRun(RFNotebookError, LookupError):  # noqa: N818
    """A run id that this experiment does not have."""


class ReadOnlyExperiment(RFNotebookError, PermissionError):  # noqa: N818
    """The experiment is being written by another kernel."""


class StoreError(RFNotebookError, OSError):
    """The experiment's record cannot be read or written."""


class RecordDamaged(StoreError):  # noqa: N818
    """Entries of the experiment's record are not what was written: a bit was flipped, or some are gone."""

    def __init__(self, message: str, sure: Sequence[Any] = ()) -> None:
        """With the entries (``events.Recorded``) before the first that is damaged."""
        super().__init__(message)
        self.sure = sure


class LeaseLost(StoreError):  # noqa: N818
    """Another kernel took the experiment over while this one was writing it."""


class StorageFull(StoreError):  # noqa: N818
    """There is no room for the record or for a checkpoint; nothing was half-written."""


class CheckpointDamaged(RFNotebookError, OSError):  # noqa: N818
    """A checkpoint's files are not those that were hashed when it was written."""


class WorkerLost(RFNotebookError):  # noqa: N818
    """The process that trains is gone; what it held continues from its checkpoints."""


class WorkerCannotStart(RFNotebookError):  # noqa: N818
    """The process that is to train ended before it could; it would do so again."""
