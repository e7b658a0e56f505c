"""Which runs share a turn, and do they train in it together or one after another?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rf_notebook.planning.fusion import Execution, Trial, Way

if TYPE_CHECKING:
    from rf_notebook.core.runner import ConfigRules, Fusibility
    from rf_notebook.core.state import RunRecord


class Grouping:
    """What is known of who can train with whom."""

    def __init__(
        self, rules: ConfigRules, execution: Execution, *, is_spread: bool = False
    ) -> None:
        """Nobody has trained yet.

        Args:
            rules: Says who may train together, as far as configs tell.
            execution: How runs share the device.
            is_spread: Whether models lie on several GPUs: then runs over one base fill its stages
                together, each with passes of its own, in every execution.
        """
        self._rules = rules
        self._execution = execution
        self._is_spread = is_spread
        self._hindrances: dict[int, str] = {}
        """Why runs cannot take part in joint steps, as their trainers told."""
        self._trials: dict[tuple[str, int], Trial] = {}
        """Of execution="auto", by what the runs have in common and how many they are."""

    @property
    def is_joint(self) -> bool:
        """Whether runs that can train in joint steps."""
        return self._execution is not Execution.EXACT and not self._is_spread

    def hinder(self, run_id: int, why: str) -> None:
        """A run's trainer tells that it cannot take part in joint steps."""
        self._hindrances[run_id] = why

    def fusibility(self, record: RunRecord) -> Fusibility:
        """Whether a run can train in joint steps, as its config and its trainer tell."""
        found = self._rules.fusibility(record.config)
        hindrance = self._hindrances.get(record.run_id)
        if hindrance and found.key is not None:
            return replace(found, key=None, reason=hindrance)
        return found

    def alone_because(self, record: RunRecord) -> str:
        """Why a run trained alone where others train together; empty where all do."""
        return self.fusibility(record).reason if self.is_joint else ""

    def key(self, record: RunRecord) -> str | None:
        """Equal for runs that share a turn; None for one that has its turns alone."""
        if self._is_spread:
            return self._rules.fusibility(record.config).line
        return self.fusibility(record).key if self.is_joint else None

    def way(self, group: Sequence[RunRecord]) -> Way | None:
        """How a group trains; None where its trial decides.

        A lone run trains in joint steps, too: with execution="auto" as its peers did.
        """
        if self._is_spread:
            return Way.ALONE if self.key(group[0]) is None else Way.TOGETHER
        key = self.fusibility(group[0]).key
        if self._execution is Execution.EXACT or key is None:
            return Way.ALONE
        if self._execution is Execution.FUSED:
            return Way.TOGETHER
        if len(group) > 1:
            return None
        known = [trial for (of, _), trial in self._trials.items() if of == key and trial.is_over]
        return known[-1].next_way() if known else Way.ALONE

    def trial(self, group: Sequence[RunRecord]) -> Trial:
        """Of groups that have as much in common and are as many."""
        key = self.fusibility(group[0]).key
        assert key is not None
        return self._trials.setdefault((key, len(group)), Trial())
