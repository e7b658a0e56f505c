"""What can a page ask a kernel to do? Each name is one function of the experiment and the command's arguments."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rf_notebook.core.errors import ConfigError, UnknownRun
from rf_notebook.core.operations import BY_VERB
from rf_notebook.core.values import Json
from rf_notebook.engine.mailbox import Receipt
from rf_notebook.jupyterlab.host import Experiments, LabHost
from rf_notebook.jupyterlab.protocol import Command

#: The answer at once, or a receipt: then the answer comes when the operation was obeyed or refused.
Answer = Json | Receipt[Any]
_MOST_RUNS = 1000


def obey(command: Command, experiments: Experiments, answer_later: Callable[[BaseException | None], None]) -> Answer:
    """Do what a page asked.

    Args:
        command: As it came; untrusted.
        experiments: Of this kernel.
        answer_later: How to answer for what takes its time; the return value is ``LATER`` then.

    Raises:
        RFNotebookError: why it cannot be done.
    """
    if command.name == "open":
        experiments.open(_text(command.arguments, "name"))
        return {}
    host = _experiment(command.arguments, experiments)
    if command.name == "end":
        host.end_soon(answer_later)
        return LATER
    if command.name in _SLOW:
        slow = _SLOW[command.name]
        _in_thread(lambda: slow(host, command.arguments), answer_later)
        return LATER
    if command.name in BY_VERB:
        return host.operate(command.name, _runs(command.arguments, host), "button")
    if command.name not in _COMMANDS:
        raise ConfigError(f"the kernel's rf_notebook knows no command {command.name!r:.60}.")
    return _COMMANDS[command.name](host, command.arguments)


#: The answer comes by itself.
LATER: Answer = object()


def _retry(host: LabHost, arguments: Mapping[str, Json]) -> Answer:
    return host.retry(_run(arguments, host))


def _clone(host: LabHost, arguments: Mapping[str, Json]) -> Answer:
    warm = arguments.get("warm") is True
    return {"model_id": host.clone_form_model(_run(arguments, host), warm=warm)}


def _panel(host: LabHost, _arguments: Mapping[str, Json]) -> Answer:
    return {"model_id": host.panel_model()}


def _saved(host: LabHost, _arguments: Mapping[str, Json]) -> Answer:
    return {"data": host.saved_bundle()}


def _log(host: LabHost, _arguments: Mapping[str, Json]) -> Answer:
    """Where the log lies, seen from the kernel's working directory."""
    if not host.log_path.exists():
        raise ConfigError(f"experiment {host.experiment_name!r} has written no log here yet.")
    return {"path": Path(os.path.relpath(host.log_path, Path.cwd())).as_posix()}


def _in_thread(do: Callable[[], object], answer_later: Callable[[BaseException | None], None]) -> None:
    """So that other clicks are heard meanwhile."""

    def work() -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - told where it was asked
            answer_later(error)
        else:
            answer_later(None)

    threading.Thread(target=work, name="rf-jupyterlab", daemon=True).start()


_COMMANDS: dict[str, Callable[[LabHost, Mapping[str, Json]], Answer]] = {
    "pause": lambda host, _arguments: host.set_paused(True),
    "go on": lambda host, _arguments: host.set_paused(False),
    "retry": _retry,
    "clone": _clone,
    "panel": _panel,
    "log": _log,
    "saved": _saved,
}
#: What loads models, or writes files.
_SLOW: dict[str, Callable[[LabHost, Mapping[str, Json]], object]] = {
    "export": lambda host, given: host.export(_run(given, host), _text(given, "path")),
    "export notebook": lambda host, given: host.export_notebook(_text(given, "path")),
    "replay": lambda host, _given: host.replay(),
}


def _experiment(arguments: Mapping[str, Json], experiments: Experiments) -> LabHost:
    wanted = _text(arguments, "experiment")
    for host in experiments.known():
        if str(host.folder) == wanted:
            return host
    raise ConfigError("this kernel no longer holds that experiment; reopen it.")


def _run(arguments: Mapping[str, Json], host: LabHost) -> int:
    found = _runs(arguments, host)
    if len(found) != 1:
        raise ConfigError(f"give one run, not {len(found)}.")
    return found[0]


def _runs(arguments: Mapping[str, Json], host: LabHost) -> list[int]:
    given = arguments.get("runs")
    if not isinstance(given, list) or not 0 < len(given) <= _MOST_RUNS:
        raise ConfigError("a command names its runs in a list.")
    for run_id in given:
        if isinstance(run_id, bool) or not isinstance(run_id, int):
            raise UnknownRun(f"{run_id!r:.60} is no run.")
        host.panel_state.record(run_id)
    return given


def _text(arguments: Mapping[str, Json], key: str) -> str:
    value = arguments.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"the command needs a text for {key!r}.")
    return value
