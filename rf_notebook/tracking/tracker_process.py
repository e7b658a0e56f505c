"""The process in which a tracker's library is: it answers each message once it is written."""

from __future__ import annotations

import importlib
from multiprocessing.connection import Connection

from rf_notebook.core.errors import ConfigError
from rf_notebook.runners.ending import end_with_parent
from rf_notebook.tracking.tracker_mirror import Failed
from rf_notebook.tracking.trackers.base import Teller


def main(descriptor: str, tracker: str) -> None:
    """Tell a library what comes through the pipe, until it ends.

    Args:
        descriptor: Of the pipe.
        tracker: One of TRACKERS.
    """
    pipe = Connection(int(descriptor))
    end_with_parent()
    shown = teller = None
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        try:
            if shown is None:
                module = importlib.import_module(f"rf_notebook.tracking.trackers.{tracker}")
                shown = module.Shown(message)
                teller = Teller(shown)
            elif message is None:
                shown.close()
            else:
                assert teller is not None
                teller.tell(message)
        except BaseException as error:  # noqa: BLE001 - whatever a library raises, and SystemExit
            is_final = isinstance(error, ImportError | ConfigError)
            pipe.send(Failed(f"{type(error).__name__}: {error}"[:500], is_final))
        else:
            pipe.send(None)
