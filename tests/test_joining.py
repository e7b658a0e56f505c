"""How a process joins a cluster that is slow, or is not there. Ray's own part is a function here."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import pytest

from rf_notebook.core.cluster import Cluster
from rf_notebook.core.errors import ConfigError
from rf_notebook.runners.cluster import joining

#: As a head says it whose server for the client did not start in time.
BUSY = """Initialization failure from server:
Traceback (most recent call last):
  File "ray/util/client/server/proxier.py", line 780, in Datapath
RuntimeError: Proxy failed to Connect to backend!
"""


@pytest.fixture
def ray(monkeypatch):
    """See the module ray: joins once what is in ``refusals`` was raised; counts what was tried."""

    def init(**_options):
        ray.tried += 1
        if ray.refusals:
            raise ray.refusals.pop(0)

    ray = SimpleNamespace(init=init, shutdown=lambda: None, refusals=[], tried=0)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(joining, "_check_token", lambda _cluster: None)
    monkeypatch.setattr(joining, "_PAUSE_SECONDS", 0.01)
    return ray


@pytest.fixture
def head():
    """A port where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Cluster(address=f"ray://127.0.0.1:{listening.getsockname()[1]}")


def test_a_head_that_is_slow_to_serve_a_client_is_waited_for(ray, head):
    ray.refusals = [ConnectionAbortedError(BUSY), ConnectionAbortedError(BUSY)]
    assert joining.joined(head) is ray
    assert ray.tried == 3


def test_a_head_that_stays_so_is_told_in_the_words_of_the_head(ray, head, monkeypatch):
    monkeypatch.setattr(joining, "_BUSY_SECONDS", 0.05)
    ray.refusals = [ConnectionAbortedError(BUSY)] * 1000
    with pytest.raises(ConfigError, match="does not answer: RuntimeError: Proxy failed to Connect"):
        joining.joined(head)


@pytest.mark.parametrize(
    "refusal", [RuntimeError("Version mismatch: 2.60 and 2.50"), ConnectionError("no such cluster")]
)
def test_other_refusals_are_told_at_once(ray, head, refusal):
    ray.refusals = [refusal] * 2
    with pytest.raises(ConfigError, match=f"does not answer: {refusal}"):
        joining.joined(head)
    assert ray.tried == 1


def test_nobody_is_told_at_once_and_waited_for_where_there_was_somebody(ray, monkeypatch):
    nobody = Cluster(address="ray://127.0.0.1:9")
    with pytest.raises(ConfigError, match="refused"):
        joining.joined(nobody)
    tries = iter([ConnectionRefusedError("refused"), None])

    def knock(_address):
        if (error := next(tries)) is not None:
            raise error

    monkeypatch.setattr(joining, "_knock", knock)
    assert joining.joined(nobody, again=True) is ray
