"""A turn of several runs in joint steps."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from rf_notebook.core.foreground import is_cell_at_work
from rf_notebook.training.aside import aside_together
from rf_notebook.training.fused.eligibility import hindrance
from rf_notebook.training.fused.group import FusedGroup
from rf_notebook.training.fused.joint_model import JointModel
from rf_notebook.training.fused.member import Member
from rf_notebook.training.fused.recorded import RecordedPasses
from rf_notebook.training.fused.standing import texts_together
from rf_notebook.training.parked import ParkedStatus
from rf_notebook.training.undisturbed import OwnDtype

if TYPE_CHECKING:
    from rf_notebook.core.runner import ChunkRequest
    from rf_notebook.core.values import Json
    from rf_notebook.training.active_run import ActiveRun
    from rf_notebook.training.resources import Resources


class JointTurns:
    """Keeps a joint model for each base model."""

    def __init__(self, resources: Resources) -> None:
        """No joint model yet.

        Args:
            resources: What the runs share.
        """
        self._resources = resources
        self.models: dict[int, JointModel] = {}
        """By the id of the base model below."""

    def hindrance(self, run: ActiveRun) -> str:
        """Why a run cannot take part in joint steps; empty when it can."""
        if run.hindrance is None:
            run.hindrance = hindrance(run.trainer) or ""
        model = self.models.get(id(self._resources.trainers.modules_of(run.config)[0]))
        if model is not None and model.broken is not None:
            run.hindrance = model.broken
        return run.hindrance

    def is_worth_it(self, runs: Sequence[ActiveRun]) -> bool:
        """Whether these runs are faster in joint steps.

        With nobody to share its tokens, a run that generates is where a step of one token is
        recorded, which adapters with dropout are not.
        """
        if len(runs) != 1:
            return bool(runs)
        (run,) = runs
        drops = bool((run.config.peft or {}).get("lora_dropout"))
        return not run.method.generates or (RecordedPasses.is_possible and not drops)

    def advance(self, requests: Sequence[ChunkRequest], runs: Mapping[int, ActiveRun]) -> None:
        """Train runs in joint steps, each to its boundary or to where it should park.

        An interrupt ends the turn at the next step.

        Args:
            requests: The turn's requests; at least one.
            runs: Those that the requests are for, ready to train, by id.
        """
        started = time.perf_counter()
        model = self._brought_in(list(runs.values()), room=sum(run.room for run in runs.values()))
        boundaries = {run_id: run.next_boundary for run_id, run in runs.items()}
        members = {run_id: _member(run, model) for run_id, run in runs.items()}
        until = {
            members[r.run_id]: min(
                boundaries[r.run_id], boundaries[r.run_id] if r.park_at is None else r.park_at
            )
            for r in requests
        }
        model.expect(max(_forwards_left(runs[r.run_id], is_judged=r.is_judged) for r in requests))
        before = {run_id: run.parked.step for run_id, run in runs.items()}
        trained, set_up = time.perf_counter(), model.counts.setup_seconds
        with self._own_dtype(), FusedGroup(model, list(members.values())) as group:
            group.advance(until)
            ended = time.perf_counter()
            joined = [run_id for run_id, member in members.items() if member.joint_forwards]
            for run_id in joined[:1]:
                runs[run_id].setup_seconds += model.counts.setup_seconds - set_up
                runs[run_id].notes += tuple(model.notes)
                model.notes.clear()
            for run_id, run in runs.items():
                run.overhead_seconds += (trained - started) / len(runs)
                run.train_seconds += (ended - trained) / len(runs)
                if run_id in joined:
                    run.is_joint = True
                    run.fused_with = tuple(
                        sorted({*run.fused_with, *(other for other in joined if other != run_id)})
                    )
                elif run.parked.step > before[run_id]:
                    run.hindrance = _why_alone(run, model)
                if (
                    run.parked.status is ParkedStatus.PARKED
                    and run.parked.step >= boundaries[run_id]
                ):
                    run.reached = boundaries[run_id]
                self.hindrance(run)  # it may have come to one
            there = {
                run: members[run_id]
                for run_id, run in runs.items()
                if run.reached is not None or run.parked.status is ParkedStatus.FINISHED
            }
            self._evaluate(group, there)
            self._write_samples(group, there)
        self._save([(r, runs[r.run_id]) for r in requests if runs[r.run_id] in there])

    def _evaluate(self, group: FusedGroup, there: Mapping[ActiveRun, Member]) -> None:
        """Evaluate those that stand at a boundary together; what fails here, its own turn tells."""
        work = {
            run: (member, run.at_boundary.evaluate_here)
            for run, member in there.items()
            if run.at_boundary.is_to_be_evaluated
        }
        seconds = aside_together(group, work, self._resources.dtype)
        for run in work:
            run.at_boundary.eval_seconds += seconds

    def _write_samples(self, group: FusedGroup, there: Mapping[ActiveRun, Member]) -> None:
        """Let those that stand at a boundary answer the sample prompts together."""
        work = {
            run: (member, run.at_boundary.write_samples_here)
            for run, member in there.items()
            if run.at_boundary.is_to_write_samples
        }
        aside_together(group, work, self._resources.dtype)

    def _save(self, runs: Sequence[tuple[ChunkRequest, ActiveRun]]) -> None:
        """Have the checkpoints of those that stand at a boundary written.

        Each is copied to the host, and while it is written, hashed and flushed the next is copied.
        """
        evaluated = [(request, run) for request, run in runs if run.at_boundary.is_evaluated]
        if len(evaluated) > 1:
            for request, run in evaluated:
                run.save_ahead(request)

    def write_texts(
        self, runs: Sequence[ActiveRun], prompts: Sequence[str], settings: Mapping[str, Json]
    ) -> dict[int, list[str]]:
        """What runs that stand write to prompts, their tokens together, by run.

        Those that have nobody to share with, or cannot share, are left out.
        """
        over: dict[int, list[ActiveRun]] = {}
        for run in runs:
            if not self.hindrance(run):
                base = self._resources.trainers.modules_of(run.config)[0]
                over.setdefault(id(base), []).append(run)
        found: dict[int, list[str]] = {}
        for same in over.values():
            if len(same) > 1:
                found |= self._texts_together(same, prompts, settings)
        return found

    def _texts_together(
        self, runs: Sequence[ActiveRun], prompts: Sequence[str], settings: Mapping[str, Json]
    ) -> dict[int, list[str]]:
        model = self._brought_in(runs)
        writes = [partial(run.at_boundary.texts_here, prompts, settings) for run in runs]
        members = [(_member(run, model), run.parked) for run in runs]
        with self._own_dtype():
            texts = texts_together(model, members, writes, self._resources.dtype)
        pairs = zip(runs, texts, strict=True)
        return {run.run_id: one for run, one in pairs if one is not None}

    def close(self) -> None:
        """Let the joint models go."""
        self.models.clear()

    def _brought_in(self, runs: Sequence[ActiveRun], *, room: int = 0) -> JointModel:
        """The joint model of runs over one base, with all that they need on the device."""
        trainers = self._resources.trainers
        modules = {id(m): m for run in runs for m in trainers.modules_of(run.config)}
        ids = [run.run_id for run in runs]
        self._resources.bring_in(list(modules.values()), ids, room=room)
        return self.model_of(next(iter(modules.values())))  # the base comes first

    def model_of(self, base: Any) -> JointModel:
        """The joint model over a base."""
        if id(base) not in self.models:
            with self._own_dtype():
                self.models[id(base)] = JointModel(base, self._resources.log)
        return self.models[id(base)]

    def _own_dtype(self) -> AbstractContextManager[Any]:
        """New tensors have the runs' dtype, whatever a cell that is at work sets."""
        return OwnDtype(self._resources.dtype) if is_cell_at_work() else nullcontext()


def _member(run: ActiveRun, model: JointModel) -> Member:
    """The run as a member of groups over this model; the same from turn to turn."""
    if run.member is None or run.member[0] is not model:
        member = Member(
            run.parked,
            model,
            pads_right=run.method.pads_right,
            generates=run.method.generates,
            tell=run.tell,
        )
        run.member = model, member
    return run.member[1]


def _forwards_left(run: ActiveRun, *, is_judged: bool) -> int:
    """The most forwards of a run that are sure to come, or that come before runs can be compared.

    What makes steps faster afterwards must not hold up the first comparison.
    """
    is_early = is_judged or run.live_progress(run.parked.step).chunks == 0
    end = run.next_boundary if is_early else run.known_plan.total_steps
    return (end - run.parked.step) * int(run.trainer.args.gradient_accumulation_steps)


def _why_alone(run: ActiveRun, model: JointModel) -> str:
    """Why none of a run's forwards was one that joint steps know."""
    args = run.trainer.args
    if model.why_padded and (getattr(args, "packing", None) or getattr(args, "padding_free", None)):
        return (
            "packing puts several rows into one, and the base model's rows cannot be packed "
            f"jointly: {model.why_padded}"
        )
    return "it calls its model in a way that joint steps do not know"
