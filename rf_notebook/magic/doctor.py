"""Will it work here? Each part that an experiment needs, with a remedy where one is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.requirements import TRAINING, lower_bounds, too_old
from rf_notebook.store.sqlite import sqlite_version
from rf_notebook.widgets.front_end import FrontEnd, front_end

if TYPE_CHECKING:
    from rf_notebook.core.cluster import Cluster


class Health(StrEnum):
    """How a part is."""

    GOOD = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One part."""

    part: str
    health: Health
    words: str
    remedy: str = ""


class Diagnosis:
    """All findings; shown as text."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is bad."""
        return all(finding.health is not Health.BAD for finding in self.findings)

    def __repr__(self) -> str:
        signs = {Health.GOOD: "✓", Health.NOTE: "·", Health.BAD: "✗"}
        width = max(len(finding.part) for finding in self.findings)
        lines = []
        for finding in self.findings:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            lines.append(
                f"{signs[finding.health]} {finding.part.ljust(width)}  {finding.words}{remedy}"
            )
        return "\n".join(lines)


def diagnose(folder: Path, cluster: Cluster | None = None) -> Diagnosis:
    """Look at everything; a part that cannot be looked at is a finding, too.

    Args:
        folder: Where experiments are kept.
        cluster: A Ray cluster to look at, too.
    """
    found: list[Finding] = []
    checks = dict(_CHECKS)
    if cluster is not None:
        checks["cluster"] = lambda _folder: _cluster(cluster)
    for part, check in checks.items():
        try:
            found.extend(check(folder))
        except Exception as error:  # noqa: BLE001 - one broken part must not hide the others
            words = f"could not be looked at: {type(error).__name__}: {error}"
            found.append(Finding(part=part, health=Health.BAD, words=words))
    return Diagnosis(tuple(found))


def _python(_folder: Path) -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    remedy = "" if good else "install Python 3.11 or newer"
    yield Finding(
        part="Python",
        health=Health.GOOD if good else Health.BAD,
        words=platform.python_version(),
        remedy=remedy,
    )


def _installed(name: str) -> Finding:
    """What is installed of a distribution; raises PackageNotFoundError when nothing is."""
    version = importlib.metadata.version(name)
    if next(too_old(name), None) is None:
        return Finding(part=name, health=Health.GOOD, words=version)
    bound = lower_bounds()[name]
    remedy = f"pip install -U '{name}>={bound}', and restart the kernel"
    return Finding(
        part=name, health=Health.BAD, words=f"{version} is older than {bound}", remedy=remedy
    )


def _libraries(_folder: Path) -> Iterator[Finding]:
    for name in (*TRAINING, "mlflow"):
        try:
            yield _installed(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                part=name, health=Health.BAD, words="is not installed", remedy=f"pip install {name}"
            )


def _device(_folder: Path) -> Iterator[Finding]:
    from rf_notebook.training.memory import device_memory

    name, free, total = device_memory()
    gigabytes = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if name == "CPU":
        yield Finding(
            part="device",
            health=Health.NOTE,
            words=f"no GPU; the CPU has {gigabytes}",
            remedy="small models train on it; for others use a machine with a GPU",
        )
        return
    crowded = free < 0.5 * total
    yield Finding(
        part="device",
        health=Health.NOTE if crowded else Health.GOOD,
        words=f"{name}, {gigabytes}",
        remedy="another process or kernel holds GPU memory; nvidia-smi names it" if crowded else "",
    )


def _joint_steps(_folder: Path) -> Iterator[Finding]:
    from rf_notebook.training.fused.ways import ways_here

    yield Finding(part="joint steps", health=Health.GOOD, words=ways_here())


def _disk(folder: Path) -> Iterator[Finding]:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    low = free < 5e9
    yield Finding(
        part="disk",
        health=Health.NOTE if low else Health.GOOD,
        words=f"{free / 1e9:.1f} GB free for {folder}",
        remedy="free some, or give Experiment an experiment_path on another disk" if low else "",
    )


def _sqlite(_folder: Path) -> Iterator[Finding]:
    yield Finding(
        part="SQLite", health=Health.GOOD, words=f"{sqlite_version()}, used with a rollback journal"
    )


def _notebook(_folder: Path) -> Iterator[Finding]:
    for name, needed in (
        ("ipykernel", "a notebook"),
        ("jupyterlab", "JupyterLab"),
        ("ipywidgets", "the live panel"),
        ("anywidget", "the live panel"),
    ):
        try:
            yield _installed(name)
        except importlib.metadata.PackageNotFoundError:
            words = f"is not installed in this environment; {needed} needs it"
            yield Finding(part=name, health=Health.NOTE, words=words, remedy=f"pip install {name}")
    if importlib.util.find_spec("jupyterlab_widgets") is None:
        yield Finding(
            part="widgets in JupyterLab",
            health=Health.BAD,
            words="jupyterlab_widgets is missing where this kernel runs",
            remedy="pip install jupyterlab_widgets where JupyterLab runs, and restart it",
        )


def _front_end(_folder: Path) -> Iterator[Finding]:
    where = front_end()
    can = {
        FrontEnd.JUPYTER: "live panel, clicks also while a cell runs",
        FrontEnd.VSCODE: "live panel; clicks wait while a cell runs, so prefer run_fit without wait()",
        FrontEnd.COLAB: "a picture that wait() refreshes; operate with %rapidfire or Python",
        FrontEnd.KAGGLE: "a picture that wait() refreshes; operate with %rapidfire or Python",
        FrontEnd.MARIMO: "experiment.panel() shows the figures as they are when its cell runs",
        FrontEnd.HEADLESS: "a static picture at the end of wait()",
        FrontEnd.TERMINAL: "a table of text",
        FrontEnd.SCRIPT: "lines of text",
    }[where]
    yield Finding(part="front end", health=Health.GOOD, words=f"{where}: {can}")


def _tracking(_folder: Path) -> Iterator[Finding]:
    from rf_notebook.tracking.mlflow_database import tracking_uri_of_user

    given = tracking_uri_of_user()
    words = (
        f"the tracking server that you set: {given}"
        if given
        else "mlflow.db in each experiment's folder"
    )
    yield Finding(part="MLflow", health=Health.GOOD, words=words)


def _cluster(cluster: Cluster) -> Iterator[Finding]:
    from rf_notebook.runners.cluster.look import look_at

    try:
        seen = look_at(cluster)
    except ConfigError as error:
        yield Finding(part="cluster", health=Health.BAD, words=str(error))
        return
    gpus = sum(node.gpus for node in seen.nodes)
    yield Finding(
        part="cluster",
        health=Health.GOOD,
        words=f"Ray {seen.ray} at {cluster.address}: nodes: {len(seen.nodes)}, GPUs free: {seen.free_gpus:g} of {gpus:g}",
    )
    for node in seen.nodes:
        yield Finding(
            part=f"node {node.host}",
            health=Health.BAD if node.problem else Health.GOOD,
            words=node.problem or f"{node.gpus:g} GPUs, the versions of this kernel",
        )
    if cluster.storage is not None:
        yield Finding(
            part="storage",
            health=Health.BAD if seen.storage else Health.GOOD,
            words=seen.storage or f"all nodes write and read in {cluster.storage}",
        )
    if seen.listeners:
        yield Finding(
            part="listeners",
            health=Health.NOTE,
            words=f"a process that joins opens {', '.join(seen.listeners)} here, while it is there",
            remedy="cluster='ray://host:10001' opens none",
        )
    if os.environ.get("RAY_USE_TLS", "0") == "0":
        yield Finding(
            part="traffic",
            health=Health.NOTE,
            words="not encrypted: data, checkpoints, configs and the token pass in clear text",
            remedy="use a private network, or Ray's TLS",
        )


_CHECKS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "Python": _python,
    "libraries": _libraries,
    "device": _device,
    "joint steps": _joint_steps,
    "disk": _disk,
    "SQLite": _sqlite,
    "notebook": _notebook,
    "front end": _front_end,
    "MLflow": _tracking,
}
