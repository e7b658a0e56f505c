"""Who may write an experiment?

One holder at a time, known by host, process and that process's start.
"""

from __future__ import annotations

import os
import socket

import psutil

from rf_notebook.core.ports import Holder

#: Seconds without a renewal after which a holder on another host counts as gone.
STALE_AFTER_SECONDS = 60.0
#: Seconds between renewals.
RENEW_EVERY_SECONDS = 10.0


def this_process() -> Holder:
    """The holder that this process is."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started=round(psutil.Process().create_time(), 2),
    )


def is_alive(holder: Holder, *, renewed_at: float, now: float) -> bool:
    """Whether a holder may still write.

    On this host the process table tells at once, so there is no wait after a kill; elsewhere the
    last renewal does.
    """
    if holder.host != socket.gethostname():
        return now - renewed_at < STALE_AFTER_SECONDS
    try:
        process = psutil.Process(holder.pid)
        same = abs(process.create_time() - holder.process_started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


LEASE_LOST = (
    "another kernel took this experiment over, so nothing more is written from here. "
    "Continue in that kernel, or call run_fit(..., take_over=True) here to take it back."
)


def read_only_sentence(holder: Holder) -> str:
    """What a second kernel is told."""
    return (
        f"this experiment is being trained by process {holder.pid} on {holder.host}; here it can only be looked at. "
        "End it there, or call run_fit(..., take_over=True) to continue it here."
    )
