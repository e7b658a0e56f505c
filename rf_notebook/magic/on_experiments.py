"""The sub-commands about whole experiments and files; each is one call of the Python API."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.typed_text import parse_values
from rf_notebook.automl.validation import unknown_argument
from rf_notebook.automl.yaml_grid import RUN_VALUES, RUN_VARIABLES, parse_grid
from rf_notebook.core.cluster import Cluster
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.run import FINISHED, RunState
from rf_notebook.experiment import Experiment, use_experiment
from rf_notebook.magic.context import Text
from rf_notebook.magic.doctor import Diagnosis, diagnose
from rf_notebook.magic.parser import POSITIONAL
from rf_notebook.session.arguments import check_storage
from rf_notebook.session.registry import recorded_experiments, remove
from rf_notebook.store.disposal import bytes_of
from rf_notebook.views.words import size

if TYPE_CHECKING:
    from rf_notebook.magic.context import Context

#: Endings of files that hold a record.
_FILES = (".ipynb", ".zip", ".json")


class OnExperiments:
    """A method for each sub-command, of its parsed arguments."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def demo(self, given: argparse.Namespace) -> Experiment:
        """Start the offline demonstration."""
        from rf_notebook.demo.quickstart import start

        return start(given.name)

    def run(self, given: argparse.Namespace) -> Experiment:
        """Start an experiment from variables of the notebook."""
        arguments: dict[str, Any] = {}
        names = iter(POSITIONAL)
        for word in given.variables:
            key, is_named, value = word.partition("=")
            if is_named:
                arguments[key] = (
                    self._context.variable(value)
                    if key in (*POSITIONAL, *RUN_VARIABLES)
                    else _literal(key, value)
                )
                continue
            name = next(names, None)
            if name is None:
                raise ConfigError(
                    f"there are {len(POSITIONAL)} variables at most: {', '.join(POSITIONAL)}."
                )
            arguments[name] = None if word == "-" else self._context.variable(word)
        if "param_config" not in arguments:
            raise ConfigError(
                f"name the variable that holds the search, as in %rapidfire run {given.name} search create_model train_data; "
                "or write a grid below %%rapidfire run."
            )
        return self._start(given.name, arguments)

    def run_cell(self, given: argparse.Namespace, cell: str) -> Experiment:
        """Start an experiment from the grid below the magic."""
        grid = parse_grid(cell, self._context.variables)
        return self._start(given.name, {"param_config": grid.search, **grid.run_arguments})

    def _start(self, name: str, arguments: dict[str, Any]) -> Experiment:
        experiment = Experiment(name)
        experiment.run_fit(**arguments)
        return experiment

    def export(self, given: argparse.Namespace) -> Path:
        """Write a run's adapter, or the whole experiment."""
        if given.run != "best" and not given.run.isdigit():
            return self._export_experiment(given)
        (run_id,) = self._context.run_ids([given.run], single=True)
        return self._context.commands.export(run_id, given.path, merge=given.merge, origin="magic")

    def _export_experiment(self, given: argparse.Namespace) -> Path:
        if given.merge:
            raise ConfigError("--merge is for the adapter of a run; give a run, or leave it out.")
        path = Path(given.path)
        if given.html and path.suffix != ".html":
            path = path.with_name(f"{path.name}.html")
        return _recorded(given.run).export_notebook(path)

    def open(self, given: argparse.Namespace) -> Experiment:
        """Read a recorded experiment."""
        return use_experiment(_recorded(given.name))

    def remove(self, given: argparse.Namespace) -> Text:
        """Remove a recorded experiment from the disk, or say what that would do."""
        if given.yes:
            remove(given.name)
            return Text(f"experiment {given.name!r} is removed.")
        folder = _recorded(given.name).folder
        return Text(
            f"{folder} ({size(bytes_of(folder))}) would be removed, its record, checkpoints and figures, for good: "
            f"%rapidfire remove {shlex.quote(given.name)} --yes"
        )

    def replay(self, given: argparse.Namespace) -> Any:
        """Train an experiment again, or say what that would do."""
        if given.what is None or not _is_file(given.what):
            if given.yes or given.until is not None or given.name is not None:
                raise ConfigError("--yes, --until and --name are for the replay of a file.")
            return self._context.experiment.replay(given.what)
        from rf_notebook.shared import SharedExperiment

        return SharedExperiment(given.what).replay(
            given.name, yes=given.yes, until=given.until, accept_changes=given.accept_changes
        )

    def verify(self, given: argparse.Namespace) -> Any:
        """Whether a file's parts fit together."""
        from rf_notebook.shared import SharedExperiment

        return SharedExperiment(given.file).verify()

    def diff(self, given: argparse.Namespace) -> Any:
        """In what two experiments differ."""
        from rf_notebook.shared import SharedExperiment, diff

        return diff(
            *(
                SharedExperiment(one) if _is_file(one) else _recorded(one)
                for one in (given.first, given.second)
            )
        )

    def list(self, given: argparse.Namespace) -> Any:
        """The experiments that are recorded here."""
        import pandas as pd

        rows = []
        for name in recorded_experiments():
            experiment = Experiment(name)
            runs = experiment.runs
            over = sum(run.state in (*FINISHED, RunState.FAILED, RunState.DELETED) for run in runs)
            rows.append(
                {
                    "experiment": name,
                    "runs": len(runs),
                    "over": over,
                    "folder": str(experiment.folder),
                }
            )
        return pd.DataFrame(rows, columns=["experiment", "runs", "over", "folder"])

    def doctor(self, given: argparse.Namespace) -> Diagnosis:
        """Whether this machine can train."""
        storage = check_storage("doctor", given.storage)
        if storage is not None and not given.cluster:
            raise ConfigError("doctor --storage is about a cluster's nodes; give --cluster, too.")
        cluster = (
            Cluster(
                address=given.cluster,
                allow_unauthenticated=given.allow_unauthenticated,
                storage=storage,
            )
            if given.cluster
            else None
        )
        return diagnose(Path("rf_experiments"), cluster)


def _is_file(word: str) -> bool:
    return (
        Path(word).suffix in _FILES
        or "/" in word
        or (Path(word).is_dir() and word not in recorded_experiments())
    )


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
