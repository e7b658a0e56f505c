"""How do the libraries' messages reach the experiment's log rather than a random notebook cell?

What a background thread prints appears under whichever cell ran last. While the engine's threads
work, progress bars are off, and log records of theirs go to the experiment's log; records of other
threads are untouched.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
from transformers.utils import logging as transformers_logging

from rf_notebook.core.foreground import THREAD_PREFIX

_LIBRARIES = ("transformers", "trl", "peft", "accelerate", "datasets", "huggingface_hub", "optuna")


def is_our_thread() -> bool:
    """Whether the current thread is one of the engine's."""
    return threading.current_thread().name.startswith(THREAD_PREFIX)


def _of_other_threads(record: logging.LogRecord) -> bool:
    return not (record.threadName or "").startswith(THREAD_PREFIX)


def _of_our_threads(record: logging.LogRecord) -> bool:
    return not _of_other_threads(record)


class _Forward(logging.Handler):
    """Hands our threads' records to the experiment's log."""

    def __init__(self, log: logging.Logger) -> None:
        super().__init__()
        self._log = log
        self.addFilter(_of_our_threads)

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, "%s: %s", record.name, record.getMessage())

    def instead(self, record: logging.LogRecord) -> bool:
        """A filter of the handler of last resort: what reaches it comes from any library."""
        if _of_other_threads(record):
            return True
        self.emit(record)
        return False


@contextmanager
def library_messages_to(log: logging.Logger) -> Iterator[None]:
    """While it lasts, log records and warnings from our threads go to ``log`` only.

    Filters are not touched.
    """
    forward = _Forward(log)
    loggers = [logging.getLogger(), *map(logging.getLogger, _LIBRARIES)]
    silenced = [handler for logger in loggers for handler in logger.handlers]
    for handler in silenced:
        handler.addFilter(_of_other_threads)
    # Where a library has no handler, a further one would keep the others' records from the last resort.
    heard = [logger for logger in loggers[1:] if logger.hasHandlers()]
    for logger in heard:
        logger.addHandler(forward)
    last = logging.lastResort
    if last is not None:
        last.addFilter(forward.instead)
    show = warnings.showwarning

    def show_or_log(
        message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any
    ) -> None:
        if is_our_thread():
            log.warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)
        else:
            show(message, category, filename, lineno, *rest)

    warnings.showwarning = show_or_log  # type: ignore[assignment]
    try:
        yield
    finally:
        if warnings.showwarning is show_or_log:
            warnings.showwarning = show
        if last is not None:
            last.removeFilter(forward.instead)
        for logger in heard:
            logger.removeHandler(forward)
        for handler in silenced:
            handler.removeFilter(_of_other_threads)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Turn the libraries' progress bars off, and back to what they were."""
    data_bars = datasets.are_progress_bars_disabled()
    model_bars = transformers_logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if not data_bars:
            datasets.enable_progress_bars()
        if model_bars:
            transformers_logging.enable_progress_bar()


def without_old_names(model: Any) -> Any:
    """The same model, which peft may ask by an older name.

    transformers warns of that name, and in a thread of the user's the warning appears in the cell.
    Source: peft 0.21, ``PeftModel.__init__``; transformers 5.23, ``is_gradient_checkpointing``.
    """
    kind = type(model)
    if hasattr(kind, "is_activation_checkpointing"):
        names = {"is_gradient_checkpointing": kind.is_activation_checkpointing}
        model.__class__ = type(kind.__name__, (kind,), names)
    return model
