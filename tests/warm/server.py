"""Python processes that have imported the libraries already: SOCKET PID.

Importing torch, trl and the rest takes 14 s of a core, and the tests start well over a hundred
processes: kernels, scripts, lives that are killed. This one imports everything once and forks a
child on request, which then is a process like any other: with its own arguments, environment,
working directory, standard streams, exit handlers and status. It ends with the process PID.

A request is one JSON object on a connection, with the three standard streams as ancillary data; the
answer is the exit status. Closing the connection kills the child.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "rf_notebook.training.runner",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipywidgets",
    "anywidget",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "pandas",
    "optuna",
    "nbclient",
)


def preload() -> None:
    """Import what takes the time, and nothing that decides by itself what the tests look at."""
    from rf_notebook.core.telemetry import without_telemetry

    with without_telemetry():
        importlib.import_module("mlflow")
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    for name in _LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    # a child's collections need not look at what the libraries made, nor copy its pages
    gc.freeze()


class Child:
    """A child and the connection that asked for it."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid, self.connection = pid, connection


def serve(path: str, owner: int) -> Callable[[], Any] | None:
    """Fork children until the owner is gone. In a child, returns what it is to run."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_args: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    children: dict[int, Child] = {}
    while Path(f"/proc/{owner}").exists() if Path("/proc").exists() else os.getppid() > 1:
        connections = {child.connection: child for child in children.values()}
        ready, _, _ = select.select([listener, woken, *connections], [], [], 2.0)
        if woken in ready:
            os.read(woken, 4096)
        for connection, child in connections.items():
            if connection in ready and not _is_open(connection):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
        _bury(children)
        if listener in ready:
            connection, _ = listener.accept()
            request, streams = _received(connection)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                os.close(woken)
                os.close(wake)
                connection.close()
                for child in children.values():
                    child.connection.close()
                return _prepared(request, streams)
            for stream in streams:
                os.close(stream)
            connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")
            children[pid] = Child(pid, connection)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    Path(path).unlink(missing_ok=True)
    return None


def _is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) != b""
    except ConnectionError:
        return False


def _bury(children: dict[int, Child]) -> None:
    for pid in list(children):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            child = children.pop(pid)
            with contextlib.suppress(OSError):
                child.connection.sendall(
                    json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode() + b"\n"
                )
            child.connection.close()


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The request and its three streams."""
    data, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 16)
    return json.loads(data), list(streams)


def _prepared(request: dict[str, Any], streams: list[int]) -> Callable[[], Any]:
    """The child becomes the process that was asked for; returns its main program."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(0, "rb", closefd=False), encoding="utf-8"),
        io.TextIOWrapper(
            os.fdopen(1, "wb", closefd=False), encoding="utf-8", line_buffering=os.isatty(1)
        ),
        io.TextIOWrapper(
            os.fdopen(2, "wb", closefd=False),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        ),
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    arguments = list(request["arguments"])
    while arguments and arguments[0] in ("-W", "-u"):
        option = arguments.pop(0)
        if option == "-W":
            warnings.simplefilter(arguments.pop(0))
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [
        *(path for path in paths if path),
        *(path for path in sys.path if path not in paths),
    ]
    match arguments:
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            sys.path.insert(0, str(Path.cwd()))
            return lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            sys.path.insert(0, "")
            return lambda: exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case [script, *rest]:
            sys.argv = [script, *rest]
            return lambda: runpy.run_path(script, run_name="__main__")
        case _:
            raise ValueError(f"no program in {request['arguments']}")


if __name__ == "__main__":
    shown = warnings.showwarning
    warnings.showwarning = lambda *_args, **_kwargs: None  # of imports; a child's own are shown
    preload()
    warnings.showwarning = shown
    program = serve(sys.argv[1], int(sys.argv[2]))
    if program is not None:
        program()
