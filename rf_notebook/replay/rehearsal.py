"""A recorded experiment is being staged.

Its notebook's cells run, and where they launch it, the replay begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.fingerprint import Fingerprint
from rf_notebook.core.objects import has_state
from rf_notebook.core.redaction import private_json
from rf_notebook.core.values import Json, canonical_json, flatten
from rf_notebook.engine.script import Script, UntilChunk
from rf_notebook.record.against import (
    script_of_record,
    standard_for,
    verdict_on_record,
    without_object_digests,
)
from rf_notebook.record.record import Record, portable
from rf_notebook.record.verify import brought_by_clones, diff_lines, is_definition
from rf_notebook.replay.cells import CellOver, run_cell

if TYPE_CHECKING:
    from rf_notebook.session.launch import Launch
    from rf_notebook.session.session import Session

_MOST_TOLD = 6


@dataclass(slots=True)
class Rehearsal:
    """The replay that cells are being run for; see ``session.stage.Stage``."""

    record: Record
    name: str
    """Of the experiment that trains it again."""
    folder: Path
    """In which that experiment's folder will lie."""
    cells: Sequence[str]
    """That are run."""
    until: UntilChunk | None = None
    accepts_changes: bool = False
    namespace: dict[str, Any] = field(default_factory=dict)
    """Of the cells."""
    session: Session | None = None
    """Of the replay, once the cells have launched it."""
    left_out: list[str] = field(default_factory=list)
    """Names of other experiments that the cells make, whose cells end there."""

    def place_of(self, name: object) -> tuple[str, Path]:
        """Where an experiment that a cell constructs lies: the recorded one in its new place.

        Raises:
            CellOver: for another one.
        """
        if self.session is not None or name != self._launched_as:
            self.left_out.append(str(name))
            raise CellOver
        return self.name, self.folder

    @property
    def _launched_as(self) -> str:
        """The name in the launching cell: a replay that was recorded itself has another."""
        return str(self.record.spec.options.get("experiment_name", self.record.experiment))

    def as_recorded(self, launch: Launch) -> Launch:
        """The launch with the recorded cells as its own, so that the replay can be shared again."""
        return replace(launch, launched_as=self._launched_as, cells=tuple(self.cells))

    def script_for(self, launch: Launch) -> Script:
        """The operations to come, once it is found that the cells make what was recorded.

        Raises:
            ConfigError: naming what they make otherwise.
        """
        changes = list(self._changes(launch))
        if changes and not self.accepts_changes:
            listed = "; ".join(changes[:_MOST_TOLD])
            more = f"; and {len(changes) - _MOST_TOLD} more" if len(changes) > _MOST_TOLD else ""
            raise ConfigError(
                f"the cells do not make what was recorded: {listed}{more}. Replay an unchanged notebook, or accept the changes."
            )
        self._add_functions(launch)
        recorded = launch.recorded()
        standard = standard_for(self.record, launch.started.versions, recorded.environment)
        return Script(
            script_of_record(self.record),
            lambda state: verdict_on_record(self.record, state, standard),
            until=self.until,
        )

    def _add_functions(self, launch: Launch) -> None:
        """Give the launch the functions that later clones brought.

        What the cells define, or else what was recorded.

        Raises:
            ConfigError: naming one that there is not.
        """
        for name, source in brought_by_clones(self.record).items():
            if name in launch.objects:
                continue
            plain = name.partition("@")[0]
            if has_state(name):
                raise ConfigError(
                    f"a clone uses a {plain!r:.80} with a state of its own, which is not recorded."
                )
            if plain not in self.namespace and source is not None and is_definition(plain, source):
                run_cell(source, f"function {plain}", self.namespace)
            if plain not in self.namespace:
                raise ConfigError(
                    f"a clone uses {plain!r:.80}, which the notebook's cells do not define."
                )
            launch.objects.put(name, self.namespace[plain])

    def began(self, session: Session) -> None:
        """The replay trains; the rest of the cell is left out.

        Raises:
            CellOver: always.
        """
        self.session = session
        raise CellOver

    def _changes(self, launch: Launch) -> Iterator[str]:
        spec, started = self.record.spec, launch.started
        for name in ("num_chunks", "seed", "data_seed", "execution"):
            before, now = getattr(spec, name), getattr(started, name)
            if before != now:
                yield f"{name} was {before!r} and is {now!r}"
        yield from _function_changes(spec.functions, launch)
        before_configs = [config.as_run_config().as_json() for config in spec.configs]
        now_configs = [private_json(config.as_json()) for config in launch.configs]
        if len(before_configs) != len(now_configs):
            yield f"{len(before_configs)} configs were recorded and the cells make {len(now_configs)}"
        for number, (then, now) in enumerate(
            zip(before_configs, now_configs, strict=False), start=1
        ):
            for key, was, value in _value_changes(then, now):
                yield f"run {number}: {key} was {was} and is {value}"
        for part in ("train", "eval"):
            yield from _data_changes(
                part,
                Fingerprint.read(spec.data.get(part)),
                Fingerprint.read(started.data.get(part)),
            )


def _function_changes(recorded: dict[str, str], launch: Launch) -> Iterator[str]:
    """Functions are known by their plain names, and lambdas have one in common.

    A changed one is told with its change.
    """
    now: dict[str, list[str]] = {}
    for name, source in launch.functions().items():
        now.setdefault(name.partition("@")[0], []).append(source)
    for name, before in recorded.items():
        plain = name.partition("@")[0]
        if plain in now and before not in now[plain]:
            lines = " | ".join(diff_lines(before, now[plain][0]))
            yield f"function {plain} was changed ({lines[:300]})"


def _value_changes(
    then: Mapping[str, Json], now: Mapping[str, Json]
) -> Iterator[tuple[str, str, str]]:
    before = flatten(without_object_digests(portable(then)))
    after = flatten(without_object_digests(portable(now)))
    for key in dict.fromkeys([*before, *after]):
        was, value = canonical_json(before.get(key)), canonical_json(after.get(key))
        if was != value:
            yield key, was[:60], value[:60]


def _data_changes(part: str, then: Fingerprint | None, now: Fingerprint | None) -> Iterator[str]:
    argument = f"{part}_dataset"
    if then is None or now is None:
        if then is not now:
            was, is_now = ("not given" if one is None else "given" for one in (then, now))
            yield f"{argument} was {was} and is {is_now}"
    elif then.sha256 == now.sha256:
        return
    elif then.rows != now.rows:
        yield f"{argument} had {then.rows} rows and has {now.rows}"
    elif then.columns != now.columns:
        yield f"{argument} had the columns {list(then.columns)} and has {list(now.columns)}"
    else:
        yield f"{argument} was changed{_where(then.blocks, now.blocks, now.rows or 0)}"


def _where(then: Sequence[str], now: Sequence[str], rows: int) -> str:
    """Which rows are other ones, as far as the digests of blocks of rows tell."""
    if not then or not now or len(then) != len(now):
        return ""
    size = -(-rows // len(now))
    places = [
        f"row {i * size + 1}"
        if size == 1
        else f"rows {i * size + 1} to {min((i + 1) * size, rows)}"
        for i, (a, b) in enumerate(zip(then, now, strict=True))
        if a != b
    ]
    return (
        f" in {', '.join(places[:5])}" + (" and more" if len(places) > 5 else "") if places else ""
    )
