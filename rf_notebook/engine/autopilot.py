"""When is a policy asked, and what becomes of its answer? Its decisions are ordinary operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rf_notebook.automation.callback import as_policy
from rf_notebook.automation.policy import Clone, Decision, Policy, Resume, Stop, View
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.operations import CloneRun, Operation, ResumeRun, StopRun
from rf_notebook.core.run import RunConfig, RunState
from rf_notebook.core.state import ExperimentState
from rf_notebook.core.values import Json

#: Makes a clone's config: the parent's config and edits become the config and what really differs.
ApplyEdits = Callable[[RunConfig, Any], tuple[RunConfig, Mapping[str, Json]]]
#: Names by which users are recorded.
_TAKEN = ("python", "magic", "button", "replay")
_OVER = (RunState.COMPLETED, RunState.FAILED)


class Autopilot:
    """A policy at work."""

    def __init__(self, policy: Any, apply_edits: ApplyEdits) -> None:
        """Ask nothing yet.

        Args:
            policy: One, or a callback in the style of RapidFire AI.
            apply_edits: See ApplyEdits.

        Raises:
            ConfigError: when it is no policy.
        """
        policy = as_policy(policy)
        name = getattr(policy, "name", None)
        if not callable(getattr(policy, "decide", None)) or not isinstance(name, str) or not 0 < len(name) <= 100:
            raise ConfigError(
                f"{type(policy).__name__} is no policy; give an object with a name and decide(view), such as Halving()."
            )
        if name in _TAKEN:
            raise ConfigError(f"a policy cannot be named {name!r}; that is how operations of users are recorded.")
        self.policy: Policy = policy
        self.waits_for = ""
        """What the policy waits for, in words, as it said last."""
        self.name = name
        self._apply_edits = apply_edits
        self._seen: object = None

    def is_due(self, state: ExperimentState) -> bool:
        """Whether a run has trained a chunk or ended since it was asked last."""
        now = tuple(
            (record.run_id, record.progress.chunks, record.state in _OVER)
            for record in state.runs.values()
            if record.progress.chunks or record.state in _OVER
        )
        if now == self._seen or not now:
            return False
        self._seen = now
        return True

    def decide(self, state: ExperimentState) -> list[tuple[Operation, str]]:
        """Operations on runs that are not pinned, each with its reason.

        Raises:
            Exception: what the policy raises, and ConfigError for what it may not ask for.
        """
        view = View(state)
        decided = self.policy.decide(view)
        tell = getattr(self.policy, "waits_for", None)
        self.waits_for = str(tell(view))[:300] if callable(tell) else ""
        return [(self._operation(one, state), one.reason) for one in decided if one.run not in state.pinned]

    def _operation(self, decision: Decision, state: ExperimentState) -> Operation:
        match decision:
            case Stop():
                return StopRun(run_id=decision.run)
            case Resume():
                return ResumeRun(run_id=decision.run)
            case Clone():
                config, changed = self._apply_edits(state.record(decision.run).config, decision.edits)
                return CloneRun(run_id=decision.run, config=config, edits=changed, warm_start=decision.warm_start)
            case _:
                raise ConfigError(f"decide() gave a {type(decision).__name__}; give Stop, Resume or Clone.")
