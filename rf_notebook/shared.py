"""An experiment that somebody handed over: look at it, check it, compare it, and train it again."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import visible_json, visible_line
from rf_notebook.core.versions import versions
from rf_notebook.engine.script import UntilChunk
from rf_notebook.experiment import Experiment
from rf_notebook.record.against import compare_with_record, standard_for
from rf_notebook.record.differences import differences
from rf_notebook.record.files import Shared, read_shared
from rf_notebook.record.record import Record, parse_record
from rf_notebook.record.verify import Finding, verify
from rf_notebook.replay.cells import run_cells
from rf_notebook.replay.plan import ReplayPlan, plan_replay
from rf_notebook.replay.rehearsal import Rehearsal
from rf_notebook.session.registry import FOLDER
from rf_notebook.session.stage import staged
from rf_notebook.widgets.front_end import front_end

if TYPE_CHECKING:
    import pandas as pd


#: Longest that it takes to see that a replay ended without a verdict.
_LOOK_SECONDS = 1.0


class SharedExperiment:
    """An experiment from a notebook, an exported folder or zip, or a ``record.json``.

    Opening one executes, unpacks and fetches nothing.

    Args:
        path: The file or folder.

    Raises:
        ConfigError: when it holds no experiment's record, or a damaged one.
    """

    def __init__(self, path: str | Path) -> None:
        self._shared: Shared = read_shared(path)

    @property
    def name(self) -> str:
        """Of the experiment that was recorded."""
        return self._shared.record.experiment

    @property
    def record(self) -> Record:
        """What defines it, what was done to it, and what it gave."""
        return self._shared.record

    def verify(self) -> Findings:
        """Whether digests, spec, operations, results and the notebook's cells fit together.

        Nothing is trained.
        """
        return Findings(verify(self._shared))

    def diff(self, other: SharedExperiment | Experiment) -> pd.DataFrame:
        """In what another experiment differs.

        A row for each difference, with its part and both values.
        """
        return diff(self, other)

    def plan(
        self,
        name: str | None = None,
        *,
        until: str | None = None,
        experiment_path: str | Path | None = None,
    ) -> Planned:
        """What ``replay`` would train, what differs here, and which code it would run.

        See there.
        """
        _until(until, self.record)
        here, installed = self._environment(), versions()
        target = Path(experiment_path if experiment_path is not None else FOLDER) / self._target(
            name
        )
        standard = standard_for(self.record, installed, here)
        made = plan_replay(self._shared, target, standard, installed, here)
        return Planned(
            self, made, {"name": name, "until": until, "experiment_path": experiment_path}
        )

    def replay(
        self,
        name: str | None = None,
        *,
        yes: bool = False,
        until: str | None = None,
        accept_changes: bool = False,
        experiment_path: str | Path | None = None,
    ) -> Experiment | Planned:
        """Train it again with every recorded operation at its step, and compare.

        The notebook's cells are run in a namespace of their own, down to the call of ``run_fit``.
        **They are the code of whoever made the notebook.** Nothing is run, imported, fetched or
        written without ``yes``. At the end a message says whether all chunks are equal, or which
        differs first.

        Args:
            name: The new experiment's name; "<the recorded one>-replay" when omitted.
            yes: That the code may be run. Without it, the plan is returned and nothing happens.
            until: "RUN@CHUNK", as "2@3": where the replay pauses and is yours.
            accept_changes: Train also when the cells make other configs, data or functions than
                were recorded.
            experiment_path: See ``Experiment``.

        Returns:
            The new experiment, which trains; the plan without ``yes``.

        Raises:
            ConfigError: when it cannot be replayed, or when the cells do not make what was
                recorded, each change named.
        """
        planned = self.plan(name, until=until, experiment_path=experiment_path)
        if not yes:
            return planned
        if planned.plan.hinders:
            raise ConfigError(
                f"{self.name!r} cannot be replayed: {'; '.join(planned.plan.hinders[:4])}."
            )
        rehearsal = Rehearsal(
            record=self.record,
            name=self._target(name),
            folder=planned.plan.target.parent,
            cells=planned.plan.cells,
            until=_until(until, self.record),
            accepts_changes=accept_changes,
        )
        with staged(rehearsal):
            run_cells(
                planned.plan.cells,
                rehearsal.namespace,
                _magics(),
                stop=lambda: rehearsal.session is not None,
            )
        if rehearsal.session is None:
            others = (
                f" (it makes {', '.join(map(repr, rehearsal.left_out[:5]))})"
                if rehearsal.left_out
                else ""
            )
            raise ConfigError(
                f"the notebook's cells never called run_fit for {self.name!r}{others}."
            )
        return Experiment.of(rehearsal.session)

    def compare(self, experiment: Experiment) -> pd.DataFrame:
        """Whether an experiment gave what is recorded.

        A row per run, with the chunks that agree and what differs first.
        """
        import pandas as pd

        experiment.session.refresh()
        standard = standard_for(self.record, versions(), self._environment())
        rows = [
            {
                "run_id": one.run_id,
                "equal": one.difference is None,
                "chunks": one.steps,
                "difference": one.difference,
            }
            for one in compare_with_record(self.record, experiment.session.state, standard)
        ]
        return pd.DataFrame(visible_json(rows), columns=["run_id", "equal", "chunks", "difference"])

    def __repr__(self) -> str:
        record = self.record
        return (
            f"<experiment {record.experiment!r} of {self._shared.path.name!r}: {len(record.results)} runs, "
            f"{len(record.operations)} operations; verify(), diff(other), replay()>"
        )

    def _target(self, name: str | None) -> str:
        return name or f"{self.name}-replay"[:100]

    @staticmethod
    def _environment() -> dict[str, Any]:
        from rf_notebook.training.facts import environment

        return environment()


class Findings(list[Finding]):
    """What ``verify`` looked at; true when all of it is right."""

    def __bool__(self) -> bool:
        return all(finding.is_right for finding in self)

    def __str__(self) -> str:
        signs = {True: "✓", False: "✗"}
        return "\n".join(f"{signs[one.is_right]} {visible_line(one.text)}" for one in self)

    __repr__ = __str__


class Planned:
    """A replay that waits for a yes.

    ``start()``, ``%rapidfire replay FILE --yes``, or the button below it.
    """

    def __init__(
        self, shared: SharedExperiment, plan: ReplayPlan, arguments: dict[str, Any]
    ) -> None:
        self.plan = plan
        self._shared = shared
        self._arguments = arguments

    def start(self) -> Experiment:
        """Agree: the code is run and everything is trained again."""
        started = self._shared.replay(**self._arguments, yes=True)
        assert isinstance(started, Experiment)
        return started

    def __str__(self) -> str:
        return str(self.plan)

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        if not front_end().shows_widgets:
            print(str(self))  # noqa: T201 - what IPython in a terminal shows of a value
            return
        from rf_notebook.widgets.replay_plan import show_plan

        def start(tell: Callable[[str], None]) -> None:
            replay = self.start()
            threading.Thread(
                target=_tell_verdict, args=(replay, tell), name="rf-replay-verdict", daemon=True
            ).start()

        show_plan(str(self), can_start=not self.plan.hinders, start=start)


def _tell_verdict(replay: Experiment, tell: Callable[[str], None]) -> None:
    """Below the button that agreed, for the launching cell is over by then."""
    seen = -1
    while replay.session.is_training:
        told = [message for message in replay.messages if message.startswith("the replay ")]
        if told:
            tell(told[-1])
            return
        seen = replay.session.wait_for_change(seen, _LOOK_SECONDS)


def diff(
    first: SharedExperiment | Experiment, second: SharedExperiment | Experiment
) -> pd.DataFrame:
    """In what two experiments differ: part, what, and both values."""
    import pandas as pd

    rows = [
        {"part": one.part, "what": one.what, "first": one.first, "second": one.second}
        for one in differences(_record(first), _record(second))
    ]
    return pd.DataFrame(visible_json(rows), columns=["part", "what", "first", "second"])


def _record(given: SharedExperiment | Experiment) -> Record:
    return given.record if isinstance(given, SharedExperiment) else parse_record(given.record())


def _until(text: str | None, record: Record) -> UntilChunk | None:
    if text is None:
        return None
    run, _, chunk = str(text).partition("@")
    if not (run.isdecimal() and chunk.isdecimal() and len(run + chunk) < 12 and int(chunk) > 0):
        raise ConfigError(f"until={text!r:.40}: write RUN@CHUNK, as in 2@3.")
    if int(run) not in {result.run for result in record.results}:
        raise ConfigError(
            f"until={text!r}: there is no run {run}; the record has runs 1 to {len(record.results)}."
        )
    return UntilChunk(int(run), int(chunk))


def _magics() -> dict[str, Any]:
    """``%rapidfire`` in cells that are run again, in their own namespace."""
    # Found by its name, as IPython finds extensions: the magic lies above, and has this module's
    # commands in it.
    return {"rapidfire": importlib.import_module("rf_notebook.magic.extension").run_in_namespace}
