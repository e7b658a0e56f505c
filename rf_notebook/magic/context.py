"""What do sub-commands share? The notebook's variables, and the experiment that was used last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.errors import ConfigError, IllegalOperation
from rf_notebook.experiment import Experiment
from rf_notebook.magic.run_ids import parse_run_ids
from rf_notebook.session.commands import Commands
from rf_notebook.session.registry import latest_session

if TYPE_CHECKING:
    from rf_notebook.session.session import Session

#: Seconds that a line waits for its operation to be obeyed; after that its receipt is returned.
PATIENCE_SECONDS = 30.0


class Context:
    """See the module."""

    def __init__(self, variables: Callable[[], Mapping[str, Any]]) -> None:
        """Nothing is looked up yet.

        Args:
            variables: Gives those of the notebook.
        """
        self._variables = variables

    @property
    def variables(self) -> Mapping[str, Any]:
        """Of the notebook, by name."""
        return self._variables()

    def variable(self, name: str) -> Any:
        """The value of a variable of the notebook.

        Raises:
            ConfigError: when there is none of that name.
        """
        if name not in self.variables:
            known = [one for one in self.variables if not one.startswith("_")]
            raise ConfigError(f"there is no variable {name!r}; {did_you_mean(name, known)}")
        return self.variables[name]

    @property
    def session(self) -> Session:
        """Of the experiment that was used last.

        Raises:
            IllegalOperation: before there is one.
        """
        found = latest_session()
        if found is None:
            raise IllegalOperation(
                "there is no experiment yet; %rapidfire demo starts one, %rapidfire open NAME opens one."
            )
        return found

    @property
    def commands(self) -> Commands:
        """What can be asked of it."""
        return Commands(self.session)

    @property
    def experiment(self) -> Experiment:
        """The experiment itself."""
        return Experiment.of(self.session)

    def run_ids(
        self, words: Sequence[str], *, single: bool = False, verb: str | None = None
    ) -> list[int]:
        """The runs that words name.

        Args:
            words: As typed: "3", "3,5", "2-4", "best", "all".
            single: Whether there must be exactly one.
            verb: What is to be done to them; "all" means those that allow it.

        Raises:
            ConfigError: for words that name no run, or several where one is meant.
        """
        found = parse_run_ids(words, self.experiment, verb=verb)
        if single and len(found) != 1:
            raise ConfigError(f"give one run, not {len(found)}.")
        return found


class Text:
    """A text that IPython shows as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__
