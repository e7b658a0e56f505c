"""``%rapidfire`` and ``%%rapidfire``: parse a line, make one Python call, return what it gives."""

from __future__ import annotations

import argparse
import inspect
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class

from rf_notebook.automl.typed_text import config_keys, edits_of, parse_values
from rf_notebook.automl.validation import did_you_mean, unknown_argument
from rf_notebook.automl.yaml_grid import RUN_VALUES, RUN_VARIABLES, parse_grid
from rf_notebook.core.errors import ConfigError, IllegalOperation, RFNotebookError
from rf_notebook.core.run import FINISHED, RunState
from rf_notebook.experiment import Experiment, use_experiment
from rf_notebook.magic.doctor import Diagnosis, diagnose
from rf_notebook.magic.parser import HELP, POSITIONAL, Done, parser
from rf_notebook.magic.run_ids import parse_run_ids
from rf_notebook.results.log_lines import log_lines
from rf_notebook.session.commands import Commands
from rf_notebook.session.registry import latest_session, recorded_experiments
from rf_notebook.session.session import Session

#: Seconds that a line waits for its operation to be obeyed; after that its receipt is returned.
_PATIENCE_SECONDS = 30.0
#: Endings of files that hold a record.
_FILES = (".ipynb", ".zip", ".json")


class Text:
    """A text that IPython shows as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


@magics_class
class RapidFireMagics(Magics):
    """Every sub-command is one call of the Python API and returns its object."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._parser, self._sub_parsers = parser()

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
            raise UsageError(f"%rapidfire has no sub-command {words[0]!r:.40}; {did_you_mean(words[0], HELP)}")
        try:
            given = self._parser.parse_args(words or ["help"])
        except Done as done:
            return Text(str(done)) if str(done) else None
        if cell is not None and given.command != "run":
            raise UsageError(
                f"%%rapidfire takes 'run NAME' and a grid below it; %rapidfire {given.command} is one line."
            )
        try:
            return getattr(self, f"_{given.command}")(given) if cell is None else self._run_cell(given, cell)
        except (RFNotebookError, TimeoutError) as error:
            raise UsageError(f"%rapidfire {given.command}: {error}") from None

    # ---- sub-commands

    def _demo(self, given: argparse.Namespace) -> Experiment:
        from rf_notebook.demo.quickstart import start

        return start(given.name)

    def _run(self, given: argparse.Namespace) -> Experiment:
        arguments: dict[str, Any] = {}
        names = iter(POSITIONAL)
        for word in given.variables:
            key, is_named, value = word.partition("=")
            if is_named:
                arguments[key] = self._variable(value) if key in (*POSITIONAL, *RUN_VARIABLES) else _literal(key, value)
                continue
            name = next(names, None)
            if name is None:
                raise ConfigError(f"there are {len(POSITIONAL)} variables at most: {', '.join(POSITIONAL)}.")
            arguments[name] = None if word == "-" else self._variable(word)
        if "param_config" not in arguments:
            raise ConfigError(
                f"name the variable that holds the search, as in %rapidfire run {given.name} search create_model train_data; "
                "or write a grid below %%rapidfire run."
            )
        return self._start(given.name, arguments)

    def _run_cell(self, given: argparse.Namespace, cell: str) -> Experiment:
        grid = parse_grid(cell, self._variables)
        return self._start(given.name, {"param_config": grid.search, **grid.run_arguments})

    def _start(self, name: str, arguments: dict[str, Any]) -> Experiment:
        experiment = Experiment(name)
        experiment.run_fit(**arguments)
        return experiment

    def _variable(self, name: str) -> Any:
        if name not in self._variables:
            known = [one for one in self._variables if not one.startswith("_")]
            raise ConfigError(f"there is no variable {name!r}; {did_you_mean(name, known)}")
        return self._variables[name]

    def _status(self, given: argparse.Namespace) -> Any:
        from rf_notebook.views.runs_table import runs_table_frame

        return runs_table_frame(self._session.recent_state)

    def _panel(self, given: argparse.Namespace) -> Any:
        return self._experiment.panel()

    def _stop(self, given: argparse.Namespace) -> Any:
        return self._operate("stop", given.runs)

    def _resume(self, given: argparse.Namespace) -> Any:
        if not given.runs:
            return self._commands.set_paused(False, "magic").result(_PATIENCE_SECONDS)
        return self._operate("resume", given.runs)

    def _pause(self, given: argparse.Namespace) -> Any:
        return self._commands.set_paused(True, "magic").result(_PATIENCE_SECONDS)

    def _delete(self, given: argparse.Namespace) -> Any:
        return self._operate("delete", given.runs)

    def _clone(self, given: argparse.Namespace) -> Any:
        (run_id,) = self._run_ids([given.run], single=True)
        typed = {}
        for word in given.edits:
            key, is_edit, value = word.partition("=")
            if not is_edit:
                raise ConfigError(f"{word!r} is not an edit; write key=value, as in learning_rate=5e-5.")
            typed[key] = value
        edits = edits_of(typed, self._session.state.record(run_id).config)
        receipt = self._commands.clone_all(run_id, edits, given.warm_start, "magic")
        made = receipt.result(_PATIENCE_SECONDS)
        return made[0] if len(made) == 1 else made

    def _retry(self, given: argparse.Namespace) -> Any:
        (run_id,) = self._run_ids([given.run], single=True)
        return self._commands.retry(run_id, "magic").result(_PATIENCE_SECONDS)

    def _automate(self, given: argparse.Namespace) -> None:
        self._commands.automate(self._policy(given.policy, given.settings), "magic").result(_PATIENCE_SECONDS)

    def _policy(self, word: str, settings: Sequence[str]) -> Any:
        from rf_notebook.automation import AsyncHalving, Halving, MedianStop, StopRules

        if word == "off":
            return None
        built_in = {"halving": Halving, "async": AsyncHalving, "median": MedianStop, "rules": StopRules}
        if word not in built_in:
            if settings:
                raise ConfigError(
                    f"settings are for {', '.join(built_in)}; {word!r} is a variable that holds a policy."
                )
            return self._variable(word)
        known = tuple(inspect.signature(built_in[word]).parameters)
        typed = {}
        for one in settings:
            key, is_named, value = one.partition("=")
            if not is_named or key not in known:
                raise unknown_argument(built_in[word].__name__, key, known)
            (typed[key],) = parse_values(value)
        return built_in[word](**typed)

    def _pin(self, given: argparse.Namespace) -> None:
        self._commands.pin(self._run_ids(given.runs), True, "magic").result(_PATIENCE_SECONDS)

    def _unpin(self, given: argparse.Namespace) -> None:
        self._commands.pin(self._run_ids(given.runs), False, "magic").result(_PATIENCE_SECONDS)

    def _undo(self, given: argparse.Namespace) -> Any:
        (run_id,) = self._run_ids([given.run], single=True)
        return self._commands.undo(run_id, "magic").result(_PATIENCE_SECONDS)

    def _decisions(self, given: argparse.Namespace) -> Any:
        return self._experiment.decisions

    def _generate(self, given: argparse.Namespace) -> Any:
        return self._experiment.generate(self._run_ids([given.runs]), given.prompts, max_new_tokens=given.tokens)

    def _operate(self, verb: str, words: Sequence[str]) -> Any:
        run_ids = self._run_ids(words, verb=verb)
        made = self._commands.operate(verb, run_ids, "magic").result(_PATIENCE_SECONDS)
        return made[0] if len(made) == 1 else made

    def _wait(self, given: argparse.Namespace) -> bool:
        return self._experiment.wait(given.seconds)

    def _log(self, given: argparse.Namespace) -> Text:
        (run_id,) = self._run_ids([given.run], single=True)
        return Text("\n".join(log_lines(self._session.state, run_id)) or f"run {run_id}: nothing yet")

    def _export(self, given: argparse.Namespace) -> Path:
        if given.run != "best" and not given.run.isdigit():
            return self._export_experiment(given)
        (run_id,) = self._run_ids([given.run], single=True)
        return self._experiment.export(run_id, given.path, merge=given.merge)

    def _export_experiment(self, given: argparse.Namespace) -> Path:
        if given.merge:
            raise ConfigError("--merge is for the adapter of a run; give a run, or leave it out.")
        path = Path(given.path)
        if given.html and path.suffix != ".html":
            path = path.with_name(f"{path.name}.html")
        return _recorded(given.run).export_notebook(path)

    def _open(self, given: argparse.Namespace) -> Experiment:
        return use_experiment(_recorded(given.name))

    def _replay(self, given: argparse.Namespace) -> Any:
        if given.what is None or not _is_file(given.what):
            if given.yes or given.until is not None or given.name is not None:
                raise ConfigError("--yes, --until and --name are for the replay of a file.")
            return self._experiment.replay(given.what)
        from rf_notebook.shared import SharedExperiment

        return SharedExperiment(given.what).replay(
            given.name, yes=given.yes, until=given.until, accept_changes=given.accept_changes
        )

    def _verify(self, given: argparse.Namespace) -> Any:
        from rf_notebook.shared import SharedExperiment

        return SharedExperiment(given.file).verify()

    def _diff(self, given: argparse.Namespace) -> Any:
        from rf_notebook.shared import SharedExperiment, diff

        return diff(
            *(SharedExperiment(one) if _is_file(one) else _recorded(one) for one in (given.first, given.second))
        )

    def _list(self, given: argparse.Namespace) -> Any:
        import pandas as pd

        rows = []
        for name in recorded_experiments():
            experiment = Experiment(name)
            runs = experiment.runs
            over = sum(run.state in (*FINISHED, RunState.FAILED, RunState.DELETED) for run in runs)
            rows.append({"experiment": name, "runs": len(runs), "over": over, "folder": str(experiment.folder)})
        return pd.DataFrame(rows, columns=["experiment", "runs", "over", "folder"])

    def _end(self, given: argparse.Namespace) -> None:
        self._experiment.end(cancel=given.now)

    def _doctor(self, given: argparse.Namespace) -> Diagnosis:
        return diagnose(Path("rf_experiments"))

    def _help(self, given: argparse.Namespace) -> Text:
        if given.topic is None:
            lines = [f"  {name:8} {words}" for name, words in HELP.items()]
            lines.append(
                "\nRUN is an id (3), several (3,5 or 2-4), best or all. %rapidfire help SUB-COMMAND tells more."
            )
            return Text("%rapidfire SUB-COMMAND ...\n\n" + "\n".join(lines))
        if given.topic not in self._sub_parsers:
            raise UsageError(f"%rapidfire has no sub-command {given.topic!r}. See %rapidfire help.")
        return Text(self._sub_parsers[given.topic].format_help())

    # ---- which experiment, which runs

    @property
    def _variables(self) -> dict[str, Any]:
        assert self.shell is not None
        return self.shell.user_ns

    @property
    def _experiment(self) -> Experiment:
        return Experiment.of(self._session)

    @property
    def _session(self) -> Session:
        found = latest_session()
        if found is None:
            raise IllegalOperation(
                "there is no experiment yet; %rapidfire demo starts one, %rapidfire open NAME opens one."
            )
        return found

    @property
    def _commands(self) -> Commands:
        return Commands(self._session)

    def _run_ids(self, words: Sequence[str], *, single: bool = False, verb: str | None = None) -> list[int]:
        found = parse_run_ids(words, self._experiment, verb=verb)
        if single and len(found) != 1:
            raise ConfigError(f"give one run, not {len(found)}.")
        return found

    # ---- completion

    def complete(self, words: list[str], begun: str) -> list[str]:
        """What can stand where ``begun`` is typed.

        Args:
            words: Those before it, without the magic's own name.
            begun: May be empty.
        """
        if not words:
            return [name for name in HELP if name.startswith(begun)]
        command = words[0]
        try:
            experiment: Experiment | None = self._experiment
        except RFNotebookError:
            experiment = None
        offered: list[str] = []
        if command == "help":
            offered = list(HELP)
        elif command == "automate" and len(words) == 1:
            offered = ["halving", "async", "median", "rules", "off"]
        elif command == "open":
            offered = recorded_experiments()
        elif command == "run" and len(words) >= 2:
            offered = [name for name in self._variables if not name.startswith("_")]
            offered += [f"{name}=" for name in (*POSITIONAL, *RUN_VALUES)]
        elif command == "clone" and len(words) >= 2 and experiment is not None:
            keys = [key for record in list(self._session.state.runs.values())[:1] for key in config_keys(record.config)]
            offered = [f"{key}=" for key in (*(key.rpartition(".")[2] for key in keys), *keys)] + ["--warm-start"]
        elif (
            command
            in ("stop", "resume", "delete", "clone", "retry", "pin", "unpin", "undo", "generate", "log", "export")
            and experiment is not None
        ):
            offered = [str(run.id) for run in experiment.runs if run.state is not RunState.DELETED] + ["best", "all"]
        return [word for word in dict.fromkeys(offered) if word.startswith(begun)]


def run_in_namespace(namespace: dict[str, Any], line: str, cell: str | None) -> Any:
    """``%rapidfire`` in a cell that is replayed, whose variables are not the notebook's."""
    return RapidFireMagics(_Variables(namespace)).do(line, cell)


class _Variables:
    """As much of a shell as the magic needs."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.user_ns = namespace
        self.configurables: list[Any] = []


def _is_file(word: str) -> bool:
    return Path(word).suffix in _FILES or "/" in word or (Path(word).is_dir() and word not in recorded_experiments())


def _recorded(name: str) -> Experiment:
    if name not in recorded_experiments():
        known = ", ".join(recorded_experiments()) or "none"
        raise ConfigError(f"no experiment {name!r} is recorded here; there are: {known}.")
    return Experiment(name)


def _literal(key: str, text: str) -> Any:
    if key not in RUN_VALUES:
        raise unknown_argument("run_fit", key, (*POSITIONAL, *RUN_VALUES))
    values = parse_values(text)
    return values[0] if len(values) == 1 else values


def _matcher(magics: RapidFireMagics) -> Callable[[CompletionContext], dict[str, Any]]:
    @context_matcher(identifier="rf_notebook.rapidfire", priority=150)  # type: ignore[untyped-decorator]
    def complete(context: CompletionContext) -> dict[str, Any]:
        line = context.line_with_cursor[: context.cursor_position].lstrip()
        name, _, rest = line.partition(" ")
        if name not in ("%rapidfire", "%%rapidfire") or not line.startswith(f"{name} "):
            return {"completions": [], "suppress": False}
        words = rest.split(" ")
        begun = words[-1]
        found = magics.complete([word for word in words[:-1] if word], begun)
        made = [SimpleCompletion(word, type="rapidfire") for word in found]
        return {"completions": made, "suppress": bool(made), "matched_fragment": begun}

    return complete


def load(shell: Any) -> None:
    """Register the magic and its completion with an IPython shell; a second time changes nothing."""
    if any(isinstance(one, RapidFireMagics) for one in shell.magics_manager.registry.values()):
        return
    magics = RapidFireMagics(shell)
    Experiment.tell_jupyterlab()
    shell.register_magics(magics)
    completer = getattr(shell, "Completer", None)
    if completer is not None and hasattr(completer, "custom_matchers"):
        completer.custom_matchers.append(_matcher(magics))
