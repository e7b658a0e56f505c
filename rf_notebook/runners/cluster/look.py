"""How is a cluster? For ``%rapidfire doctor``; asked in a process that ends."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import psutil

from rf_notebook.core.errors import ConfigError
from rf_notebook.runners.cluster.carried import call_of
from rf_notebook.runners.cluster.joining import joined
from rf_notebook.runners.cluster.placing import Stay, settled, started, stay_in
from rf_notebook.runners.cluster.probe import answer_of, share_storage
from rf_notebook.runners.ending import end_with_parent

if TYPE_CHECKING:
    from rf_notebook.core.cluster import Cluster

#: How long a node is waited for.
_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """One node."""

    host: str
    gpus: float
    problem: str
    """Why nothing can train there; "" when it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """All of it."""

    ray: str
    """Its version here."""
    free_gpus: float
    listeners: tuple[str, ...]
    """That a process opens here which joins."""
    nodes: tuple[NodeReport, ...]
    storage: str = ""
    """Why the nodes cannot share it; "" when they can, or none was asked for."""


def look_at(cluster: Cluster) -> ClusterReport:
    """Join a cluster, and ask every node whether it could train.

    Raises:
        ConfigError: when it cannot be joined.
    """
    report: ClusterReport = answer_of(__name__, stay_in(cluster, ["cpu"]))
    return report


def main(descriptor: str, text: str) -> None:
    """Tell the kernel at the other end of a pipe how the cluster is, or why nobody knows.

    Args:
        descriptor: Of the pipe.
        text: A Stay.
    """
    end_with_parent()
    with Connection(int(descriptor)) as pipe:
        try:
            told: Any = _asked(Stay.from_text(text))
        except ConfigError as error:
            told = error
        pipe.send(told)


def _asked(stay: Stay) -> ClusterReport:
    ray = joined(stay.cluster)
    stay = replace(stay, token=f"look-{secrets.token_hex(8)}")
    there = [node for node in ray.nodes() if node["Alive"]]
    actors = [started(ray, stay, "cpu", node=node["NodeID"]) for node in there]
    connections = psutil.Process().net_connections()
    problems = [_problem(ray, stay, actor) for actor in actors]
    fine = [actor for actor, problem in zip(actors, problems, strict=True) if not problem]
    storage = "" if stay.storage is None else _storage_problem(ray, fine)
    _let_go(ray, fine)
    return ClusterReport(
        ray=ray.__version__,
        free_gpus=ray.available_resources().get("GPU", 0),
        listeners=tuple(
            sorted(
                f"{one.laddr.ip.removeprefix('::ffff:')}:{one.laddr.port}"
                for one in connections
                if one.status == "LISTEN"
            )
        ),
        nodes=tuple(
            NodeReport(
                host=node["NodeManagerHostname"],
                gpus=node["Resources"].get("GPU", 0),
                problem=problem,
            )
            for node, problem in zip(there, problems, strict=True)
        ),
        storage=storage,
    )


def _problem(ray: Any, stay: Stay, actor: Any) -> str:
    try:
        settled(ray, stay, actor, _SECONDS)
    except (ConfigError, ray.exceptions.RayError) as error:
        return _words(error)
    return ""


def _storage_problem(ray: Any, actors: Sequence[Any]) -> str:
    try:
        if actors:
            share_storage(call_of(ray, actor) for actor in actors)
    except (ConfigError, ray.exceptions.RayError) as error:
        return _words(error)
    return ""


def _let_go(ray: Any, actors: Sequence[Any]) -> None:
    for actor in actors:
        with contextlib.suppress(ray.exceptions.RayError):
            call_of(ray, actor)("close")


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
