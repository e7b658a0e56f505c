"""How do checkpoints come here that lie in a bucket or on a mount?

From where the experiment's folder says, once the user has named the same place: a folder that came
from others reaches nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.store import layout
from rf_notebook.store.folders import is_stand_in
from rf_notebook.store.storage import take_from
from rf_notebook.store.storage_place import known_place, use_place

if TYPE_CHECKING:
    from pathlib import Path

    from rf_notebook.core.cluster import Cluster
    from rf_notebook.core.run import StoredFolder
    from rf_notebook.core.state import ExperimentState


def in_use(state: ExperimentState) -> Iterator[StoredFolder]:
    """The folders that runs may continue from or start from."""
    for record in state.runs.values():
        yield from (saved.folder for saved in record.checkpoints)
        if record.warm_start is not None:
            yield record.warm_start


def provide(
    folder: Path,
    name: str,
    state: ExperimentState,
    *,
    storage: str | None,
    cluster: Cluster | None,
) -> None:
    """Have an experiment's checkpoints where a launch needs them.

    Args:
        folder: The experiment's.
        name: The experiment's.
        state: Up to date.
        storage: The one that the user has named.
        cluster: Whose workers are to train; None for this machine's.

    Raises:
        ConfigError: when the user has not said where they lie, or said another place.
        CheckpointDamaged: when one is gone, or another one than was recorded.
        StorageFull: when the storage cannot be read now, or there is no room here.
    """
    if cluster is not None and cluster.storage is not None:
        use_place(folder, cluster.storage, name)
    else:
        bring(folder, in_use(state), storage)


def bring(folder: Path, needed: Iterable[StoredFolder], storage: str | None) -> None:
    """Have these folders in the experiment's own; those that are there stay.

    Args and errors are those of ``provide``.
    """
    away = [one for one in needed if is_stand_in(folder, one.path)]
    if not away:
        return
    place = known_place(folder)
    if place is None:
        raise ConfigError(
            f"{away[0].path} lies in a storage, and {layout.storage(folder)} does not say in which one."
        )
    if storage != place.address:
        raise ConfigError(
            f"checkpoints of this experiment lie in {place.address!r}: give run_fit or Experiment storage={place.address!r}."
        )
    for one in away:
        take_from(place.opened(), folder, one)
