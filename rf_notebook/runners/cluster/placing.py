"""How does an actor get a device of the cluster?"""

from __future__ import annotations

import json
import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rf_notebook.core.cluster import Cluster
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.versions import versions
from rf_notebook.store.storage_place import StoragePlace

if TYPE_CHECKING:
    from rf_notebook.runners.cluster.carrier import NodeFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """What the kernel tells the processes that join a cluster for it."""

    cluster: Cluster
    token: str
    """Names the folders on the nodes."""
    devices: tuple[str, ...]
    """What each worker sees: "cpu", "cuda:0", or several joined by "+"; or one of them, for as many
    workers as there is room for."""
    python: str
    versions: Mapping[str, str]
    """The kernel's, which all nodes must have."""
    storage: StoragePlace | None = None
    """Where the checkpoints of its workers lie; None for the kernel's machine."""

    def as_text(self) -> str:
        """For a command line; it holds no secret."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Stay:
        """As ``as_text`` wrote it."""
        told = json.loads(text)
        place = told["storage"]
        return cls(
            **{
                **told,
                "cluster": Cluster(**told["cluster"]),
                "devices": tuple(told["devices"]),
                "storage": None
                if place is None
                else StoragePlace(address=place["address"], names=tuple(place["names"])),
            }
        )


def stay_in(cluster: Cluster, devices: Sequence[str], storage: StoragePlace | None = None) -> Stay:
    """What this process asks of a cluster.

    Args:
        cluster: Which one; its storage is only tried, unless one is given.
        devices: What each worker sees.
        storage: Where the checkpoints of its workers lie; None for this machine.
    """
    if storage is None and cluster.storage is not None:
        storage = StoragePlace.to_try(cluster.storage)
    return Stay(
        cluster=cluster,
        token=secrets.token_hex(16),
        devices=tuple(devices),
        python=platform.python_version(),
        versions=versions(),
        storage=storage,
    )


def gpus_of(device: str) -> int:
    """How many GPUs a worker has."""
    return sum(part != "cpu" for part in device.split("+"))


def started(ray: Any, stay: Stay, device: str, *, node: str | None = None) -> Any:
    """An actor for a device, which gets it as soon as it is free.

    Args:
        ray: The module, connected.
        stay: For which it is.
        device: What its worker sees.
        node: Ray's id of the one that it has to be on, where it takes nothing from others.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from rf_notebook.runners.cluster.carrier import GROUPS, Carrier

    kind = ray.remote(concurrency_groups=GROUPS)(Carrier)
    options: dict[str, Any] = {
        "num_cpus": 1 if node is None else 0,
        "num_gpus": gpus_of(device),
        "max_restarts": 0,  # a turn is never done again behind our back
        "max_task_retries": 0,
        "scheduling_strategy": "SPREAD",
    }
    if node is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    return kind.options(**options).remote(stay.token, device, stay.storage)


def settled(ray: Any, stay: Stay, actor: Any, seconds: float) -> NodeFacts:
    """The node of an actor, once it has one.

    Raises:
        ConfigError: when it gets none in time, or one with other versions than the kernel's.
        RayError: when it is lost.
    """
    asked = actor.node.remote()
    if not ray.wait([asked], timeout=seconds)[0]:
        ray.kill(actor)
        free = ray.available_resources()
        raise ConfigError(
            f"the cluster has no room for a further worker in {seconds:.0f} s: free are {free.get('GPU', 0):g} GPUs "
            f"and {free.get('CPU', 0):g} CPUs."
        )
    facts: NodeFacts = ray.get(asked)
    _check(stay, facts)
    return facts


def _check(stay: Stay, facts: NodeFacts) -> None:
    here = {"Python": ".".join(stay.python.split(".")[:2]), **stay.versions}
    there = {"Python": ".".join(facts.python.split(".")[:2]), **facts.versions}
    other = [
        f"{name} {there.get(name, 'not installed')} instead of {version}"
        for name, version in here.items()
        if there.get(name) != version
    ]
    if other:
        raise ConfigError(
            f"the node {facts.host} has {', '.join(other)}; runs would not be the same there. Install the kernel's "
            "versions on all nodes."
        )
