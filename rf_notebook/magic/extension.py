"""``%rapidfire`` and ``%%rapidfire``: parse a line, make one Python call, return what it gives."""

from __future__ import annotations

import shlex
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class

from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.errors import RFNotebookError
from rf_notebook.experiment import Experiment
from rf_notebook.magic.completion import matcher
from rf_notebook.magic.context import Context, Text
from rf_notebook.magic.on_experiments import OnExperiments
from rf_notebook.magic.on_runs import OnRuns
from rf_notebook.magic.parser import HELP, Done, parser


@magics_class
class RapidFireMagics(Magics):
    """Every sub-command is one call of the Python API and returns its object."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.context = Context(lambda: shell.user_ns)
        self._parser, self._sub_parsers = parser()
        self._runs, self._experiments = OnRuns(self.context), OnExperiments(self.context)

    @line_cell_magic
    def rapidfire(self, line: str, cell: str | None = None) -> Any:
        """%rapidfire SUB-COMMAND ...; %rapidfire help lists them."""
        return self.do(line, cell)

    def do(self, line: str, cell: str | None) -> Any:
        """What the line says.

        Raises:
            UsageError: in one sentence.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"%rapidfire: {error}.") from None
        if words and words[0] not in HELP:
            raise UsageError(
                f"%rapidfire has no sub-command {words[0]!r:.40}; {did_you_mean(words[0], HELP)}"
            )
        try:
            given = self._parser.parse_args(words or ["help"])
        except Done as done:
            return Text(str(done)) if str(done) else None
        if cell is not None and given.command != "run":
            raise UsageError(
                f"%%rapidfire takes 'run NAME' and a grid below it; %rapidfire {given.command} is one line."
            )
        if given.command == "help":
            return self._help(given.topic)
        try:
            if cell is not None:
                return self._experiments.run_cell(given, cell)
            owner = self._experiments if hasattr(self._experiments, given.command) else self._runs
            return getattr(owner, given.command)(given)
        except (RFNotebookError, TimeoutError) as error:
            raise UsageError(f"%rapidfire {given.command}: {error}") from None

    def _help(self, topic: str | None) -> Text:
        if topic is None:
            lines = [f"  {name:8} {words}" for name, words in HELP.items()]
            lines.append(
                "\nRUN is an id (3), several (3,5 or 2-4), best or all. %rapidfire help SUB-COMMAND tells more."
            )
            return Text("%rapidfire SUB-COMMAND ...\n\n" + "\n".join(lines))
        if topic not in self._sub_parsers:
            raise UsageError(f"%rapidfire has no sub-command {topic!r}. See %rapidfire help.")
        return Text(self._sub_parsers[topic].format_help())


def run_in_namespace(namespace: dict[str, Any], line: str, cell: str | None) -> Any:
    """``%rapidfire`` in a cell that is replayed, whose variables are not the notebook's."""
    return RapidFireMagics(_Variables(namespace)).do(line, cell)


class _Variables:
    """As much of a shell as the magic needs."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.user_ns = namespace
        self.configurables: list[Any] = []


def load(shell: Any) -> None:
    """Register the magic and its completion with an IPython shell.

    A second time changes nothing.
    """
    if any(isinstance(one, RapidFireMagics) for one in shell.magics_manager.registry.values()):
        return
    magics = RapidFireMagics(shell)
    Experiment.tell_jupyterlab()
    shell.register_magics(magics)
    completer = getattr(shell, "Completer", None)
    if completer is not None and hasattr(completer, "custom_matchers"):
        completer.custom_matchers.append(matcher(magics.context))
