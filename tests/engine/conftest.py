"""The engine's tests run over every execution, in the kernel, in one and two worker processes, and in
those as they are reached on a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rf_notebook.planning.fusion import Execution
from tests.engine.world import World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    ways = [(execution, 0, False) for execution in Execution]
    in_worker = [(Execution.EXACT, 1, False), (Execution.FUSED, 1, False)]
    if metafunc.definition.get_closest_marker("one_device") is None:
        in_worker += [(Execution.EXACT, 2, False), (Execution.FUSED, 2, False)]
        in_worker += [(Execution.FUSED, 2, True)]
    else:
        in_worker += [(Execution.EXACT, 1, True)]
    if metafunc.definition.get_closest_marker("on_this_machine") is not None:
        in_worker = [way for way in in_worker if not way[2]]
    if metafunc.definition.get_closest_marker("in_worker") is not None:
        ways = in_worker
    elif metafunc.definition.get_closest_marker("in_kernel") is None:
        ways += in_worker
    metafunc.parametrize("_way", [_param(*way) for way in ways], indirect=True)


def _param(execution: Execution, workers: int, is_carried: bool) -> Any:
    """A way, by its name; one that starts processes for each test is not part of `make unit`."""
    name = f"{execution}{['', '-process', '-two-processes'][workers]}"
    name = name.replace("process", "carried process") if is_carried else name
    marks = [pytest.mark.starts_processes] if workers else []
    return pytest.param((execution, workers, is_carried), id=name.replace(" ", "-"), marks=marks)


@pytest.fixture(autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    execution, workers, is_carried = request.param
    monkeypatch.setattr(World, "is_carried", is_carried)
    monkeypatch.setattr(World, "execution", execution)
    monkeypatch.setattr(World, "workers", workers)
    monkeypatch.setattr(World, "fleets", [])
    yield
    for fleet in World.fleets:
        fleet.kill()
        fleet.close()


@pytest.fixture
def execution(_way: None) -> Execution:
    return World.execution
