"""What libraries say in our threads goes to the experiment's log, whichever library it is."""

from __future__ import annotations

import logging
import threading

import pytest

from rf_notebook.core.foreground import THREAD_PREFIX
from rf_notebook.training.quiet import library_messages_to


@pytest.mark.parametrize("library", ["peft", "a_library_that_nobody_listed"])
def test_only_ours_go_to_the_log(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    last, shown = logging.Handler(), list[str]()
    monkeypatch.setattr(last, "emit", lambda record: shown.append(record.getMessage()))
    monkeypatch.setattr(logging, "lastResort", last)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a kernel
    monkeypatch.setattr(logging.getLogger(library), "handlers", [])
    monkeypatch.setattr(logging.getLogger(library), "propagate", True)
    log, logged = logging.Logger("experiment"), list[str]()
    log.addHandler(taking := logging.Handler())
    monkeypatch.setattr(taking, "emit", lambda record: logged.append(record.getMessage()))
    say = logging.getLogger(library).warning
    with library_messages_to(log):
        thread = threading.Thread(target=say, args=("of ours",), name=f"{THREAD_PREFIX}engine")
        thread.start()
        thread.join()
        say("of the user's")
    say("afterwards")
    assert logged == [f"{library}: of ours"]
    assert shown == ["of the user's", "afterwards"]
    assert not last.filters
