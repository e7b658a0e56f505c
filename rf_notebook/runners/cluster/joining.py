"""How does a process become part of a cluster, without what Ray does unasked?

Only in the bridge, a process of ours: ``ray.init`` changes the environment, the handlers of signals and
``sys.excepthook`` of whoever calls it.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError

if TYPE_CHECKING:
    from rf_notebook.core.cluster import Cluster

#: Read by Ray when it is imported, and passed on to nobody.
_ENVIRONMENT = {
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a failed connection never starts a cluster of its own
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}
#: How long a cluster that was there before may be away.
_AWAY_SECONDS = 300.0
#: How long one may take that listens: a head at work starts the server of a ``ray://`` client late, and then refuses it.
_BUSY_SECONDS = 150.0
_PAUSE_SECONDS = 5.0
_KNOCK_SECONDS = 10.0
_HOST_AND_PORT = re.compile(r"(ray://)?\[?(?P<host>[^/\]]+?)\]?:(?P<port>\d+)")


def joined(cluster: Cluster, *, again: bool = False) -> Any:
    """The module ``ray``, connected to a cluster that runs.

    Args:
        cluster: Which one.
        again: Whether it was there before, so that it is waited for.

    Raises:
        ConfigError: when ray is not installed, there is no token, or nobody answers.
    """
    os.environ.update(_ENVIRONMENT)
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"cluster={cluster.address!r} needs Ray ({error}): pip install 'rf-notebook[ray]'."
        ) from None
    _check_token(cluster)
    began = time.monotonic()
    while True:
        try:
            _knock(cluster.address)
            ray.init(
                address=cluster.address,
                log_to_driver=False,
                configure_logging=False,
                logging_level="ERROR",
                ignore_reinit_error=False,
            )
        except (SystemExit, Exception) as error:
            waits = _BUSY_SECONDS if isinstance(error, ConnectionAbortedError) else 0.0
            if time.monotonic() > began + (_AWAY_SECONDS if again else waits):
                raise ConfigError(
                    f"cluster={cluster.address!r} does not answer: {_words(error)}. rf_notebook joins a cluster "
                    "that runs and starts none: see `ray start`, or leave out cluster=."
                ) from error
            ray.shutdown()
            time.sleep(_PAUSE_SECONDS)
        else:
            sys.excepthook = sys.__excepthook__
            return ray


def _check_token(cluster: Cluster) -> None:
    """Let Ray use the token that there is, and refuse to join without one."""
    from ray import _raylet

    raylet: Any = _raylet  # it has no annotations
    has_token = raylet.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    uses_token = has_token and os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    if uses_token or cluster.allow_unauthenticated:
        os.environ["RAY_AUTH_MODE"] = "token" if uses_token else "disabled"
        raylet.Config.initialize("")  # as Ray's own ``authentication_token_setup`` does
        return
    raise ConfigError(
        f"cluster={cluster.address!r}: there is no token for Ray, and whoever reaches a cluster without one runs "
        "code on it. Set RAY_AUTH_TOKEN_PATH, as in docs/many-machines.md, or give allow_unauthenticated=True."
    )


def _knock(address: str) -> None:
    """Look whether anybody listens: Ray itself tries for two minutes.

    Raises:
        OSError: when nobody does.
    """
    found = _HOST_AND_PORT.fullmatch(address)
    if found is not None:
        socket.create_connection((found["host"], int(found["port"])), _KNOCK_SECONDS).close()


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    of_the_head = "Traceback (most recent call last):" in lines
    return lines[-1 if of_the_head else 0].rstrip(". ")[:300]
