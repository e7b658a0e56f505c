"""What has a cluster to offer? Asked in a process that ends, before anything trains there."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError, StorageFull
from rf_notebook.runners.cluster.carried import call_of
from rf_notebook.runners.cluster.files import Call, Stored
from rf_notebook.runners.cluster.joining import joined
from rf_notebook.runners.cluster.placing import (
    Stay,
    gpus_of,
    settled,
    started,
    stay_in,
)
from rf_notebook.runners.ending import end_with_parent
from rf_notebook.runners.process import Place, ProcessLink

if TYPE_CHECKING:
    from rf_notebook.core.cluster import Cluster
    from rf_notebook.core.fleet import DeviceFacts

#: How long devices are waited for.
_SECONDS = 120.0


def probed(stay: Stay, *, fills: bool) -> tuple[DeviceFacts, ...]:
    """What is known of a cluster's devices before anything trains on them.

    Args:
        stay: Which cluster and how many workers.
        fills: Whether there are to be as many workers of the first kind as the cluster has room for.

    Raises:
        ConfigError: when nobody answers, there are fewer devices, or other versions.
    """
    found: tuple[DeviceFacts, ...] = answer_of(__name__, stay, "fills" if fills else "")
    return found


def answer_of(module: str, stay: Stay, *arguments: str) -> Any:
    """What a process tells that joins a cluster, and ends.

    Args:
        module: Has its ``main``, of a pipe, the stay as text, and the arguments.
        stay: Which cluster.
        arguments: As they are.

    Raises:
        ConfigError: when it tells one, or nothing.
    """
    link = ProcessLink(
        Place("cpu"), module, stay.as_text(), *arguments, write_down=lambda _line: None
    )
    try:
        told = link.pipe.recv()
    except (EOFError, OSError):
        raise ConfigError(
            f"cluster={stay.cluster.address!r} could not be joined: {link.gone().reason}."
        ) from None
    finally:
        link.end(5.0)
    if isinstance(told, ConfigError):
        raise told
    return told


def devices_of(
    cluster: Cluster, wanted: tuple[str, ...] | int | str, stages: int
) -> tuple[DeviceFacts, ...]:
    """The devices of a cluster that ``run_fit(devices=..., cluster=...)`` asks for.

    Args:
        cluster: Which one.
        wanted: How many GPUs, "auto" for all that are free, or the CPU, so many times.
        stages: GPUs that a config needs, of the one that needs most.

    Raises:
        ConfigError: see ``probed``; for fewer GPUs than a config needs.
    """
    device = "+".join(f"cuda:{number}" for number in range(stages))
    if isinstance(wanted, int) and wanted < stages:
        raise ConfigError(
            f"RFModelConfig(num_gpus={stages}) needs a worker of {stages} GPUs; run_fit(devices={wanted}) gives it {wanted}."
        )
    match wanted:
        case tuple():
            devices = wanted
        case int():
            devices = (device,) * (wanted // stages)
        case _:
            devices = (device,)
    return probed(stay_in(cluster, devices), fills=wanted == "auto")


def main(descriptor: str, text: str, fills: str) -> None:
    """Tell the kernel at the other end of a pipe what there is, or why not.

    Args:
        descriptor: Of the pipe.
        text: A Stay.
        fills: "fills", or "".
    """
    end_with_parent()
    with Connection(int(descriptor)) as pipe:
        stay = Stay.from_text(text)
        try:
            told: Any = _asked(stay, fills=bool(fills))
        except ConfigError as error:
            told = error
        pipe.send(told)


def _asked(stay: Stay, *, fills: bool) -> tuple[DeviceFacts, ...]:
    ray = joined(stay.cluster)
    stay = replace(stay, token=f"probe-{secrets.token_hex(8)}")
    devices = _that_fit(ray, stay) if fills else stay.devices
    asked, there = sum(map(gpus_of, devices)), ray.cluster_resources().get("GPU", 0)
    if asked > there or not devices:
        raise ConfigError(
            f"cluster={stay.cluster.address!r} has {there:g} GPUs, and {asked or 'some'} are asked for."
        )
    actors = [started(ray, stay, device) for device in devices]
    try:
        found = [settled(ray, stay, actor, _SECONDS) for actor in actors]
        if stay.storage is not None:
            share_storage(map(partial(call_of, ray), actors))
        facts = [call_of(ray, actor)("facts") for actor in actors]
        for actor in actors:
            call_of(ray, actor)("close")
    except ray.exceptions.RayError as error:
        words = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ConfigError(
            f"cluster={stay.cluster.address!r}: a node could not start a worker: {words[0][:300]}"
        ) from error
    return tuple(
        replace(one, name=f"{node.host}/{one.name}") for one, node in zip(facts, found, strict=True)
    )


def share_storage(calls: Iterable[Call]) -> None:
    """Have nodes write and read where the others do; nothing stays there.

    Args:
        calls: One for each node: calls a method of its actor.

    Raises:
        ConfigError: when one cannot.
    """
    calls, shared = list(calls), Stored()
    try:
        for call in calls:
            shared.enter(call)
    except StorageFull as error:
        raise ConfigError(str(error)) from None
    finally:
        calls[0]("leave_storage")


def _that_fit(ray: Any, stay: Stay) -> Sequence[str]:
    device = stay.devices[0]
    return [device] * int(ray.available_resources().get("GPU", 0) // max(1, gpus_of(device)))
