"""The configs of runs, flattened once: they do not change."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rf_notebook.core.values import Json, flatten

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.state import ExperimentState, RunRecord


class FlatConfigs:
    """Of the runs of one experiment."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[RunConfig, Mapping[str, Json]]] = {}
        self._seen: list[Mapping[str, Json]] = []
        self._varying: list[str] = []

    def of(self, record: RunRecord) -> Mapping[str, Json]:
        """Every argument of a run by its dotted key."""
        known = self._known.get(record.run_id)
        if known is None or known[0] is not record.config:
            known = self._known[record.run_id] = (
                record.config,
                flatten(record.config.as_json()),
            )
        return known[1]

    def varying(self, state: ExperimentState) -> list[str]:
        """Dotted keys of the arguments in which the runs differ, in the order of the configs."""
        flats = [self.of(record) for record in list(state.runs.values())]
        is_known = len(flats) == len(self._seen) and all(map(operator.is_, flats, self._seen))
        if not is_known:
            keys = dict.fromkeys(key for flat in flats for key in flat)
            self._varying = [key for key in keys if len({repr(f.get(key)) for f in flats}) > 1]
            self._seen = flats
        return self._varying
