"""When is a policy asked, and what becomes of its answer? Its decisions are ordinary operations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rf_notebook.automation.callback import as_policy
from rf_notebook.automation.policies import Policies
from rf_notebook.automation.policy import Clone, Decision, Policy, Resume, Stop, View
from rf_notebook.automl.concrete import functions_brought
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.metrics import check_metric, headline, judged_by
from rf_notebook.core.operations import CloneRun, Operation, ResumeRun, StopRun
from rf_notebook.core.run import FINISHED, RunConfig, RunState
from rf_notebook.core.values import Json

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState

#: Makes a clone's config: the parent's config and edits become the config and what really differs.
ApplyEdits = Callable[[RunConfig, Any], tuple[RunConfig, Mapping[str, Json]]]
#: Names by which users are recorded.
_TAKEN = ("python", "magic", "button", "replay")
_OVER = (*FINISHED, RunState.FAILED)


class Autopilot:
    """A policy at work."""

    def __init__(self, policy: Any, apply_edits: ApplyEdits) -> None:
        """Ask nothing yet.

        Args:
            policy: One, or a callback in the style of RapidFire AI.
            apply_edits: See ApplyEdits.

        Raises:
            ConfigError: when it is not a policy.
        """
        policy = as_policy(policy)
        name = getattr(policy, "name", None)
        if (
            not callable(getattr(policy, "decide", None))
            or not isinstance(name, str)
            or not 0 < len(name) <= 100
        ):
            raise ConfigError(
                f"{type(policy).__name__} is not a policy; give an object with a name and decide(view), such as Halving()."
            )
        if name in _TAKEN:
            raise ConfigError(
                f"a policy cannot be named {name!r}; that is how operations of users are recorded."
            )
        self.policy: Policy = policy
        self._parts: list[Any] = policy.policies if isinstance(policy, Policies) else [policy]
        self.waits_for = ""
        """What the policy waits for, in words, as it said last."""
        self.name = name
        self._apply_edits = apply_edits
        self._seen: object = None

    @property
    def is_barrier(self) -> bool:
        """Whether a policy compares runs only when all have trained equally many chunks."""
        return any(getattr(part, "barrier", False) for part in self._parts)

    @property
    def pace_words(self) -> str:
        """What several devices mean for what the policy decides."""
        if self.is_barrier:
            return (
                f"the policy {self.name} compares runs at the same chunk: no run gets ahead of the others, so that it decides "
                "alike on any number of devices; some of them may have to wait."
            )
        return (
            f"the policy {self.name} decides whenever a run comes to a boundary: with several devices, what it decides depends "
            "on who is there first."
        )

    def is_due(self, state: ExperimentState) -> bool:
        """Whether a run has trained a chunk or ended since it was asked last."""
        now = tuple(
            (record.run_id, record.progress.chunks, record.state in _OVER)
            for record in state.runs.values()
            if record.progress.chunks or record.state in _OVER
        )
        if now == self._seen or (not now and self._seen is None):
            return False
        self._seen = now
        return True

    def ask_again(self) -> None:
        """What it was asked of last did not come to be."""
        self._seen = object()

    def check(
        self,
        configs: Collection[RunConfig],
        *,
        evaluates: bool,
        sources: Mapping[str, str],
        logged: Collection[str] = (),
    ) -> list[str]:
        """Compare the metrics that the policy watches with those that these configs will log.

        Args:
            configs: The runs' configs.
            evaluates: Whether there is evaluation data.
            sources: Sources of the functions that configs refer to, by name.
            logged: Names that were logged already.

        Returns:
            What the user should know.

        Raises:
            ConfigError: for a metric that no run will log, naming those that there will be.
        """
        told = []
        for part in self._parts:
            for metric in _watched(part):
                check_metric(
                    _owner(part),
                    metric,
                    configs,
                    evaluates=evaluates,
                    sources=sources,
                    logged=logged,
                )
            misled = {
                (config.method, metric)
                for metric in _watched(part)
                for config in configs
                if judged_by(config.method, metric, ()) != metric
            }
            for method in sorted({method for method, _ in misled}):
                best = headline([method], ["eval_reward"] if evaluates else [])
                names = ", ".join(sorted(metric for one, metric in misled if one == method))
                told.append(
                    f"{_owner(part)} decides by {names}, which does not say how good a {method} run is; {best} does."
                )
        return told

    def missing(self, state: ExperimentState) -> dict[str, list[Any]]:
        """Metrics that no run logs although each should by now, with the policies that watch them."""
        view = View(state)
        found: dict[str, list[Any]] = {}
        for part in self._parts:
            for metric in _watched(part):
                seen = [run for run in view.runs.values() if run.is_live or run.chunks]
                able = [run for run in seen if run.may_log(metric)] or seen
                if able and all(run.lacks(metric) for run in able):
                    found.setdefault(metric, []).append(part)
        return found

    def without(self, parts: Sequence[Any]) -> Autopilot | None:
        """What is left when some of the policies are set aside; None when nothing is."""
        if not isinstance(self.policy, Policies) or all(part in parts for part in self._parts):
            return None
        return Autopilot(self.policy.without(parts), self._apply_edits)

    def decide(self, state: ExperimentState) -> list[tuple[Operation, str]]:
        """Operations on runs that are not pinned, each with its reason.

        Raises:
            Exception: what the policy raises, and ConfigError for what it may not ask for.
        """
        view = View(state)
        decided = self.policy.decide(view)
        tell = getattr(self.policy, "waits_for", None)
        self.waits_for = str(tell(view))[:300] if callable(tell) else ""
        return [
            (self._operation(one, state), one.reason)
            for one in decided
            if one.run not in state.pinned
        ]

    def _operation(self, decision: Decision, state: ExperimentState) -> Operation:
        match decision:
            case Stop():
                return StopRun(run_id=decision.run)
            case Resume():
                return ResumeRun(run_id=decision.run)
            case Clone():
                config, changed = self._apply_edits(
                    state.record(decision.run).config, decision.edits
                )
                return CloneRun(
                    run_id=decision.run,
                    config=config,
                    edits=changed,
                    warm_start=decision.warm_start,
                    functions=functions_brought(decision.edits, config),
                )
            case _:
                raise ConfigError(
                    f"decide() gave a {type(decision).__name__}; give Stop, Resume or Clone."
                )


def _watched(policy: Any) -> tuple[str, ...]:
    """The metrics that a policy says it decides by."""
    return tuple(getattr(policy, "watches", ()))


def _owner(policy: Any) -> str:
    return type(policy).__name__.replace("OptunaPolicy", "RFOptuna")
