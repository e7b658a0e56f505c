"""Several policies as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rf_notebook.automation.callback import as_policy
from rf_notebook.automation.policy import Decision, Stop, View


class Policies:
    """Several policies as one; the first that wants something of a run has it.

    When a budget is spent, all only stop.

    Args:
        policies: Callbacks in the style of RapidFire AI may be among them.
    """

    def __init__(self, policies: Iterable[Any]) -> None:
        self.policies = [as_policy(policy) for policy in policies]

    @property
    def name(self) -> str:
        """All names."""
        return " + ".join(policy.name for policy in self.policies)

    def without(self, policies: Sequence[Any]) -> Policies:
        """The others."""
        return Policies([one for one in self.policies if one not in policies])

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        found: dict[int, list[Decision]] = {}
        for policy in self.policies:
            wanted: dict[int, list[Decision]] = {}
            for decision in policy.decide(view):
                wanted.setdefault(decision.run, []).append(decision)
            for run_id, decisions in wanted.items():
                found.setdefault(run_id, decisions)
        is_spent = any(self._asked("is_spent", view))
        decided = (decision for decisions in found.values() for decision in decisions)
        return [decision for decision in decided if not is_spent or isinstance(decision, Stop)]

    def waits_for(self, view: View) -> str:
        """See Policy."""
        return "; ".join(str(words) for words in self._asked("waits_for", view) if words)

    def _asked(self, name: str, view: View) -> Iterable[Any]:
        """What those of them say that have such a method."""
        methods = (getattr(policy, name, None) for policy in self.policies)
        return [method(view) for method in methods if callable(method)]
