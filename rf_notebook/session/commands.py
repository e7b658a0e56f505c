"""What can be asked of an experiment?

The one way for Python, the magic, the panel and JupyterLab.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.automation.policy import Policy, evaluates
from rf_notebook.automl.concrete import apply_edits, functions_brought
from rf_notebook.core.errors import ConfigError, IllegalOperation
from rf_notebook.core.labels import label_changes
from rf_notebook.core.operations import BY_VERB, CloneRun
from rf_notebook.core.receipt import Receipt
from rf_notebook.engine.requests import (
    Automate,
    ExportRun,
    GenerateTexts,
    LabelRuns,
    LoadModel,
    PinRuns,
    Request,
    SetPaused,
)
from rf_notebook.results.decisions import decisions_of
from rf_notebook.results.handle import Run
from rf_notebook.results.metrics import figures_of
from rf_notebook.session.beside import differences_from, names_beside
from rf_notebook.session.labelling import label_at_rest
from rf_notebook.session.models import CreateModel, load_model, texts_from, write_model
from rf_notebook.session.opening import autopilot_of
from rf_notebook.session.session import RunLike, Session
from rf_notebook.session.waiting import end
from rf_notebook.store.plain_files import path_given

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.values import Json
    from rf_notebook.record.differences import Difference

#: One run or several, by id or handle.
RunsLike = RunLike | Iterable[RunLike]


class Commands:
    """Every command may be given from any thread.

    What takes effect at a step returns a receipt at once.
    """

    def __init__(self, session: Session) -> None:
        """Ask for nothing yet.

        Args:
            session: The experiment that is asked.
        """
        self._session = session

    # ---- operations

    def operate(self, verb: str, runs: RunsLike, origin: str) -> Receipt[Any]:
        """Stop, resume or delete runs.

        Args:
            verb: "stop", "resume" or "delete".
            runs: One or several.
            origin: Who asks, as the record tells: "python", "magic" or "button".

        Returns:
            A receipt; its ``result()`` is the handle of one run, or a list of handles for several.
        """
        ids = self._ids(runs)
        return self._submit(
            [BY_VERB[verb](run_id=run_id) for run_id in ids], origin, self._handles(runs)
        )

    def clone(self, runs: RunsLike, edits: Any, warm_start: bool, origin: str) -> Receipt[Any]:
        """Add a run with the config of another and edits, for each run.

        Raises:
            ConfigError: for edits that cannot be.
        """
        cloned = [self._cloning(run_id, edits, warm_start) for run_id in self._ids(runs)]
        return self._submit(cloned, origin, self._handles(runs))

    def clone_all(
        self, run_id: int, edits: Sequence[Mapping[str, Any]], warm_start: bool, origin: str
    ) -> Receipt[Any]:
        """Add a clone of one run for each of several edits."""
        self._session.refresh()
        cloned = [self._cloning(run_id, dict(edit), warm_start) for edit in edits]
        return self._submit(cloned, origin, self._handles(()))

    def check_edits(
        self, run_id: int, edits: Mapping[str, Any]
    ) -> tuple[RunConfig, dict[str, Json]]:
        """The config that a clone would have, and what differs; nothing is added.

        Raises:
            ConfigError: for edits that cannot be.
        """
        config = self._session.state.record(run_id).config
        return apply_edits(config, dict(edits), self._session.objects.scratch())

    def retry(self, run: RunLike, origin: str) -> Receipt[Any]:
        """Clone a run that ran out of memory, with half its batch and twice its accumulation.

        Raises:
            IllegalOperation: for a run that did not fail so, or whose batch is one example.
        """
        (run_id,) = self._ids(run)
        failure = self._session.state.record(run_id).failure
        if failure is None or not failure.out_of_memory:
            raise IllegalOperation(
                f"cannot retry run {run_id}: it did not run out of memory; clone it with edits."
            )
        if not failure.retry:
            raise IllegalOperation(
                f"cannot retry run {run_id}: its batch cannot be halved; clone it with a smaller max_length or "
                "gradient_checkpointing=True."
            )
        return self.clone(run_id, dict(failure.retry), False, origin)

    def undo(self, run: RunLike, origin: str) -> Receipt[Any]:
        """Take back what a policy did last to a run.

        One that it stopped is resumed, a clone that it made is stopped.

        Raises:
            IllegalOperation: when no policy did anything to the run.
        """
        (run_id,) = self._ids(run)
        done = [
            one for one in decisions_of(self._session.state) if run_id in (one.run_id, one.made)
        ]
        if not done:
            raise IllegalOperation(
                f"cannot undo anything of run {run_id}: no policy did anything to it."
            )
        return self.operate("stop" if done[-1].made == run_id else "resume", run_id, origin)

    # ---- the whole experiment

    def set_paused(self, paused: bool, origin: str) -> Receipt[Any]:
        """Give no run a turn, or give turns again."""
        return self._submit([SetPaused(paused=paused)], origin, _nothing)

    def pin(self, runs: RunsLike, pinned: bool, origin: str) -> Receipt[Any]:
        """Let policies leave runs alone, or no longer."""
        return self._submit(
            [PinRuns(run_ids=tuple(self._ids(runs)), pinned=pinned)], origin, _nothing
        )

    def label(
        self,
        runs: RunsLike | None,
        origin: str,
        *,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        note: str | None = None,
    ) -> Receipt[Any]:
        """Change names, tags or notes; None for ``runs`` is the experiment. See ``Experiment.label``.

        Raises:
            ConfigError: for a label that cannot be.
            ReadOnlyExperiment: when another kernel trains this experiment.
        """
        changes = label_changes(name=name, tags=tags, note=note)
        run_ids = (None,) if runs is None else tuple(self._ids(runs))
        if changes.get("name") and run_ids == (None,):
            raise ConfigError("an experiment has the name of its folder; give it tags or a note.")
        if changes.get("name") and len(run_ids) > 1:
            raise ConfigError("a name is for one run; give several runs tags or a note.")
        asked = LabelRuns(run_ids=run_ids, changes=changes)
        if self._session.is_training:
            return self._submit([asked], origin, _nothing)
        label_at_rest(self._session, asked)
        return Receipt([], _nothing)

    def automate(self, policy: Policy | None, origin: str) -> Receipt[Any]:
        """Let a policy decide at chunk boundaries from now on; None for none.

        Raises:
            ConfigError: when it is not a policy, or decides by a metric that no run logs.
        """
        if policy is None:
            return self._submit([Automate(policy=None)], origin, _nothing)
        self._session.refresh()
        autopilot, state = autopilot_of(self._session, policy), self._session.state
        configs = [record.config for record in state.runs.values()]
        logged = {name for run_id in list(state.runs) for name in figures_of(state, run_id)}
        for text in autopilot.check(
            configs, evaluates=evaluates(state), sources=state.functions, logged=logged
        ):
            warnings.warn(text, stacklevel=3)
        return self._submit([Automate(policy=autopilot.policy)], origin, _nothing)

    def end(self, *, cancel: bool) -> None:
        """Wait for the runs unless it is cancelled, then close the experiment."""
        end(self._session, cancel=cancel)

    def names_beside(self) -> list[str]:
        """See ``beside.names_beside``."""
        return names_beside(self._session)

    def differences_from(self, name: str) -> list[Difference]:
        """See ``beside.differences_from``."""
        return differences_from(self._session, name)

    def end_soon(self, on_done: Callable[[BaseException | None], None]) -> None:
        """End now, keeping everything, in a thread of its own.

        Args:
            on_done: Gets the error, if there was one.
        """

        def work() -> None:
            try:
                end(self._session, cancel=True)
            except BaseException as error:  # noqa: BLE001 - told where the end was asked for
                on_done(error)
            else:
                on_done(None)

        threading.Thread(target=work, name="rf-end", daemon=True).start()

    # ---- models

    def generate(
        self,
        runs: RunsLike,
        prompts: Sequence[str],
        settings: Mapping[str, Json],
        *,
        create_model: CreateModel | None = None,
        origin: str,
    ) -> dict[int, list[str]]:
        """What the models of runs write to prompts, by run. See ``Experiment.generate``."""
        session, run_ids = self._session, self._ids(runs)
        for run_id in run_ids:
            if not session.state.record(run_id).config.writes:
                raise ConfigError(
                    f"run {run_id} is a reward model, which scores texts and writes none."
                )
        if session.is_training:
            asked = GenerateTexts(run_ids=tuple(run_ids), prompts=tuple(prompts), settings=settings)
            written = self._answer(asked, origin)
        else:
            written = texts_from(session, run_ids, prompts, settings, create_model)
        return dict(zip(run_ids, written, strict=True))

    def load(self, run: RunLike, *, create_model: CreateModel | None = None, origin: str) -> Any:
        """A run's trained model. See ``Experiment.load``."""
        (run_id,) = self._ids(run)
        model = (
            self._answer(LoadModel(run_id=run_id), origin) if self._session.is_training else None
        )
        if model is not None:
            return model
        return load_model(self._session, run_id, create_model)

    def export(
        self,
        run: RunLike,
        path: str | Path,
        *,
        merge: bool = False,
        create_model: CreateModel | None = None,
        origin: str,
    ) -> Path:
        """Write a run's adapter and tokenizer to a folder. See ``Experiment.export``."""
        (run_id,), path = self._ids(run), path_given("export(path)", path)
        if self._session.is_training:
            # Absolute: another cell may change the working directory before it is obeyed.
            self._answer(ExportRun(run_id=run_id, path=str(path.absolute()), merge=merge), origin)
        else:
            write_model(self._session, run_id, path, merge=merge, create_model=create_model)
        from rf_notebook.views.model_card import write_card

        write_card(path, self._session.name, self._session.state, run_id, merged=merge)
        return path

    def push_to_hub(
        self,
        run: RunLike,
        repo: str,
        *,
        merge: bool,
        private: bool,
        token: str | None,
        create_model: CreateModel | None,
        origin: str,
    ) -> str:
        """Upload a run's model. See ``Experiment.push_to_hub``."""
        from rf_notebook.session.publishing import push

        (run_id,) = self._ids(run)

        def export(path: Path) -> None:
            self.export(run_id, path, merge=merge, create_model=create_model, origin=origin)

        message = f"Run {run_id} of {self._session.name}"
        return push(self._session, repo, export, private=private, token=token, message=message)

    # ---- how it is asked

    def _ids(self, runs: RunsLike) -> list[int]:
        self._session.refresh()
        is_one = isinstance(runs, int | str | Run) or not isinstance(runs, Iterable)
        given: list[Any] = [runs] if is_one else list(runs)  # type: ignore[arg-type]
        return [self._session.run_id(one) for one in given]

    def _cloning(self, run_id: int, edits: Any, warm_start: bool) -> CloneRun:
        session = self._session
        config, changed = apply_edits(session.state.record(run_id).config, edits, session.objects)
        functions = functions_brought(edits, config)
        return CloneRun(
            run_id=run_id, config=config, edits=changed, warm_start=warm_start, functions=functions
        )

    def _handles(self, runs: RunsLike) -> Callable[[list[int]], Any]:
        """One handle for one run, a list of them for several."""
        session, is_one = self._session, isinstance(runs, int | Run)

        def handles(ids: list[int]) -> Any:
            found = [session.handle(run_id) for run_id in ids]
            return found[0] if is_one else found

        return handles

    def _submit(
        self, requests: Iterable[Request], origin: str, convert: Callable[[list[Any]], Any]
    ) -> Receipt[Any]:
        mailbox = self._session.engine.mailbox
        return Receipt([mailbox.submit(request, origin) for request in requests], convert)

    def _answer(self, request: Request, origin: str) -> Any:
        return self._session.engine.mailbox.submit(request, origin).result()


def _nothing(_answers: list[Any]) -> None:
    return None
