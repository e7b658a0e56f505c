"""Are the arguments of a ``run_fit`` those that are recorded, and which of its configs are new?"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.fingerprint import Fingerprint
from rf_notebook.core.objects import (
    Objects,
    has_canonical_state,
    has_state,
    name_of_version_1,
    without_state,
)
from rf_notebook.core.run import RunConfig, object_words, objects_in, with_objects
from rf_notebook.core.values import Json, digest, flatten

if TYPE_CHECKING:
    from rf_notebook.core.events import ExperimentStarted
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.session.launch import Launch


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a launch goes with what is recorded."""

    new: list[RunConfig]
    """Configs that are to join; all of them when nothing is recorded."""
    names: dict[str, Any] = field(default_factory=dict)
    """Objects of the launch by the recorded names that they stand for from now on."""
    warnings: tuple[str, ...] = ()
    """What could not be compared, in sentences."""

    def take_names(self, objects: Objects) -> None:
        """Let recorded configs refer to the objects given now; warn of what could not be compared."""
        for name, value in self.names.items():
            objects.put(name, value)
        for text in self.warnings:
            warnings.warn(text, stacklevel=5)


def continuation(
    state: ExperimentState, launch: Launch, *, known: Objects, extend: bool
) -> Continuation:
    """Match the configs of a launch with the recorded ones.

    Equal configs are found wherever they stand. Objects whose state differs from the recorded one,
    or has no form in which it could be compared, are matched by class, source and place: a reward
    that counts its calls is another one after every call.

    Args:
        state: The experiment's state.
        launch: What was given now.
        known: Objects that this kernel has under recorded names.
        extend: Whether configs may be added.

    Raises:
        ConfigError: when the arguments are not those that were recorded, told one by one.
    """
    if state.started is None:
        return Continuation(list(launch.configs))
    recorded = [record for record in state.runs.values() if record.parent_id is None]
    pairs = _pairs(recorded, launch)
    taken = {number for number, _ in pairs.values()}
    new = [config for number, config in enumerate(launch.configs) if number not in taken]
    missing = [record for record in recorded if record.run_id not in pairs]
    told = list(_shared_differences(state.started, launch.started))
    remedy = "Give the recorded arguments to continue, or use another experiment name"
    if not told and (new or missing) and not extend:
        told = list(
            _config_differences(new, [r.config for r in missing], [r.run_id for r in missing])
        )
        remedy += ", or set extend=True to add the new configs as new runs"
    if told:
        listed = "; ".join(told[:5]) + (f"; and {len(told) - 5} more" if len(told) > 5 else "")
        raise ConfigError(
            f"experiment {launch.started.name!r} is recorded with other arguments: {listed}. {remedy}."
        )
    names: dict[str, Any] = {}
    unsure: dict[str, list[int]] = defaultdict(list)
    shared: dict[str, list[int]] = defaultdict(list)
    for record in recorded:
        if record.run_id not in pairs:
            continue
        config = pairs[record.run_id][1]
        for then, now in zip(
            objects_in(record.config.as_json()), objects_in(config.as_json()), strict=True
        ):
            value = launch.objects.get(now)
            if then != now:
                if names.setdefault(then, value) is not value:
                    shared[then].append(record.run_id)
                names[then] = value
            is_same = then in known and known.get(then) is value
            if has_state(now) and not is_same and (then != now or not has_canonical_state(now)):
                unsure[object_words(without_state(now))].append(record.run_id)
    told = [_unsure_words(label, run_ids) for label, run_ids in unsure.items()]
    told += [_shared_words(name, run_ids) for name, run_ids in shared.items()]
    return Continuation(new, names, tuple(told))


def _pairs(recorded: Sequence[RunRecord], launch: Launch) -> dict[int, tuple[int, RunConfig]]:
    """The place and the config in the launch of every recorded run that has one, by run id."""
    pairs: dict[int, tuple[int, RunConfig]] = {}
    left = list(enumerate(launch.configs))
    for likeness in (without_state, None):
        groups: dict[str, list[tuple[int, RunConfig]]] = defaultdict(list)
        for number, config in left:
            groups[_key(config, launch.objects, likeness)].append((number, config))
        waiting: dict[str, list[RunRecord]] = defaultdict(list)
        for record in recorded:
            if record.run_id not in pairs:
                waiting[_key(record.config, None, likeness)].append(record)
        for key, records in waiting.items():
            pairs |= _matched(records, groups.get(key, []))
        taken = {number for number, _ in pairs.values()}
        left = [(number, config) for number, config in left if number not in taken]
    return pairs


def _matched(
    records: Sequence[RunRecord], given: Sequence[tuple[int, RunConfig]]
) -> Iterator[tuple[int, tuple[int, RunConfig]]]:
    """Configs that are alike but for the states of objects.

    By these where they decide, by place otherwise.
    """
    then, now = (
        Counter(one.digest() for one in some)
        for some in ([r.config for r in records], [c for _, c in given])
    )
    if not (then <= now or now <= then):
        return ((record.run_id, pair) for record, pair in zip(records, given, strict=False))
    places: dict[str, list[tuple[int, RunConfig]]] = defaultdict(list)
    for number, config in given:
        places[config.digest()].append((number, config))
    found = ((record, places[record.config.digest()]) for record in records)
    return ((record.run_id, equal.pop(0)) for record, equal in found if equal)


def _key(config: RunConfig, objects: Objects | None, likeness: Any) -> str:
    """Equal for configs that are alike.

    But for states of objects, or as version 0.1.0 would have recorded them.

    Args:
        config: Recorded, or given now.
        objects: Objects of the config that is given now; None for a recorded one.
        likeness: Changes names of objects; None for the spelling of version 0.1.0.
    """
    body = config.as_json()
    if likeness is not None:
        return digest(with_objects(body, likeness))
    if objects is None:
        return digest(_with_text_keys(body))
    first = with_objects(
        body, lambda name: name_of_version_1(objects.get(name)) if has_state(name) else name
    )
    return digest(_with_text_keys(first))


def _with_text_keys(config: Json) -> Json:
    """A config's JSON as version 0.1.0 wrote it.

    All keys of dicts are texts, and secrets of one argument are one.
    """
    if isinstance(config, Mapping):
        items, secret = config.get("$dict"), config.get("$secret")
        if isinstance(items, list):
            return {str(key): _with_text_keys(item) for key, item in items}
        if isinstance(secret, str):
            return {"$secret": secret.partition("#")[0]}
        return {key: _with_text_keys(item) for key, item in config.items()}
    return [_with_text_keys(item) for item in config] if isinstance(config, list) else config


def _shared_words(name: str, run_ids: Sequence[int]) -> str:
    """Version 0.1.0 gave objects of one class one name, and trained all runs with the last."""
    return (
        f"run {run_ids[-1]} and others are recorded with one {object_words(without_state(name))}: the version that recorded "
        "them trained all with the last one, and they are continued so. For one each, use another experiment name."
    )


def _unsure_words(label: str, run_ids: Sequence[int]) -> str:
    runs = ", ".join(map(str, dict.fromkeys(run_ids)))
    return (
        f"run{'s' if len(set(run_ids)) > 1 else ''} {runs}: {label} has the recorded class and source, but what it holds "
        "cannot be compared with the record; the one given now is used."
    )


def _shared_differences(recorded: ExperimentStarted, given: ExperimentStarted) -> Iterable[str]:
    for name in ("num_chunks", "seed", "data_seed", "execution"):
        before, now = getattr(recorded, name), getattr(given, name)
        if before != now:
            yield f"{name} was {before!r} and is {now!r}"
    for part, argument in (("train", "train_dataset"), ("eval", "eval_dataset")):
        before, now = (Fingerprint.read(one.data.get(part)) for one in (recorded, given))
        if before != now:
            yield f"{argument} was {before or 'not given'} and is {now or 'not given'}"


def _config_differences(
    new: list[RunConfig], missing: list[RunConfig], ids: list[int]
) -> Iterable[str]:
    for run_id, before in zip(ids, missing, strict=True):
        if new:
            now = new.pop(0)
            yield f"run {run_id}: " + ", ".join(
                _value_differences(flatten(before.as_json()), flatten(now.as_json()))
            )
        else:
            yield f"run {run_id} is not among the given configs"
    if new:
        yield f"{len(new)} given configs are not recorded"


def _value_differences(before: Mapping[str, Json], now: Mapping[str, Json]) -> Iterable[str]:
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) != now.get(key):
            yield f"{key} was {_value_words(before.get(key))} and is {_value_words(now.get(key))}"


def _value_words(value: Json) -> str:
    if isinstance(value, dict) and "$object" in value:
        name, _, sha = value["$object"].partition("@")
        return f"{name} (source {sha[:6]})"
    if isinstance(value, dict) and "$secret" in value:
        return "a secret"
    return repr(value)[:60]
