"""What can a page ask a kernel to do?

Each name is one function of the experiment and the command's arguments.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rf_notebook.core.errors import ConfigError, UnknownRun
from rf_notebook.core.operations import BY_VERB

if TYPE_CHECKING:
    from rf_notebook.core.receipt import Receipt
    from rf_notebook.core.values import Json
    from rf_notebook.jupyterlab.protocol import Command
    from rf_notebook.jupyterlab.protocols import Experiments, LabExperiment


class Later(Enum):
    """The answer comes by itself."""

    LATER = "later"


LATER = Later.LATER
#: The answer at once, or a receipt: then the answer comes when the operation was obeyed or refused.
Answer: TypeAlias = "Json | Receipt[Any] | Later"
_MOST_RUNS = 1000


def obey(
    command: Command, experiments: Experiments, answer_later: Callable[[BaseException | None], None]
) -> Answer:
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
    if command.name == "remove":
        name = _text(command.arguments, "name")
        _in_thread(lambda: experiments.remove(name), answer_later)
        return LATER
    one = _experiment(command.arguments, experiments)
    if command.name == "end":
        one.commands.end_soon(answer_later)
        return LATER
    if command.name in _SLOW:
        slow = _SLOW[command.name]
        _in_thread(lambda: slow(one, command.arguments), answer_later)
        return LATER
    if command.name in BY_VERB:
        return one.commands.operate(command.name, _runs(command.arguments, one), "button")
    if command.name not in _COMMANDS:
        raise ConfigError(f"the kernel's rf_notebook knows no command {command.name!r:.60}.")
    return _COMMANDS[command.name](one, command.arguments)


def _retry(one: LabExperiment, arguments: Mapping[str, Json]) -> Answer:
    return one.commands.retry(_run(arguments, one), "button")


def _clone(one: LabExperiment, arguments: Mapping[str, Json]) -> Answer:
    warm = arguments.get("warm") is True
    return {"model_id": one.clone_form_model(_run(arguments, one), warm=warm)}


def _panel(one: LabExperiment, _arguments: Mapping[str, Json]) -> Answer:
    return {"model_id": one.panel_model()}


def _outputs(one: LabExperiment, _arguments: Mapping[str, Json]) -> Answer:
    """What the launching cell shows: the live panel and the saved figures, each by mime type."""
    return {"outputs": [one.panel_bundle(), one.saved_bundle()]}


def _saved(one: LabExperiment, _arguments: Mapping[str, Json]) -> Answer:
    return {"data": one.saved_bundle()}


def _log(one: LabExperiment, _arguments: Mapping[str, Json]) -> Answer:
    """Where the log lies, seen from the kernel's working directory."""
    if not one.log_path.exists():
        raise ConfigError(f"experiment {one.session.name!r} has written no log here yet.")
    return {"path": Path(os.path.relpath(one.log_path, Path.cwd())).as_posix()}


def _in_thread(
    do: Callable[[], object], answer_later: Callable[[BaseException | None], None]
) -> None:
    """So that other clicks are heard meanwhile."""

    def work() -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - told where it was asked
            answer_later(error)
        else:
            answer_later(None)

    threading.Thread(target=work, name="rf-jupyterlab", daemon=True).start()


_COMMANDS: dict[str, Callable[[LabExperiment, Mapping[str, Json]], Answer]] = {
    "pause": lambda one, _arguments: one.commands.set_paused(True, "button"),
    "go on": lambda one, _arguments: one.commands.set_paused(False, "button"),
    "retry": _retry,
    "clone": _clone,
    "panel": _panel,
    "log": _log,
    "saved": _saved,
    "outputs": _outputs,
}
#: What loads models, or writes files.
_SLOW: dict[str, Callable[[LabExperiment, Mapping[str, Json]], object]] = {
    "export": lambda one, given: one.commands.export(
        _run(given, one), _text(given, "path"), origin="button"
    ),
    "export notebook": lambda one, given: one.export_notebook(_text(given, "path")),
    "replay": lambda one, _given: one.replay(),
}


def _experiment(arguments: Mapping[str, Json], experiments: Experiments) -> LabExperiment:
    wanted = _text(arguments, "experiment")
    for one in experiments.known():
        if str(one.folder) == wanted:
            return one
    raise ConfigError("this kernel no longer holds that experiment; reopen it.")


def _run(arguments: Mapping[str, Json], one: LabExperiment) -> int:
    found = _runs(arguments, one)
    if len(found) != 1:
        raise ConfigError(f"give one run, not {len(found)}.")
    return found[0]


def _runs(arguments: Mapping[str, Json], one: LabExperiment) -> list[int]:
    given = arguments.get("runs")
    if not isinstance(given, list) or not 0 < len(given) <= _MOST_RUNS:
        raise ConfigError("a command names its runs in a list.")
    for run_id in given:
        if isinstance(run_id, bool) or not isinstance(run_id, int):
            raise UnknownRun(f"{run_id!r:.60} is not a run.")
        one.session.recent_state.record(run_id)
    return given


def _text(arguments: Mapping[str, Json], key: str) -> str:
    value = arguments.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"the command needs a text for {key!r}.")
    return value
