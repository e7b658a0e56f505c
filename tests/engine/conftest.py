"""The engine's tests run over every execution, in the kernel and in a worker process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rf_notebook.planning.fusion import Execution
from tests.engine.world import World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    ways = [(execution, False) for execution in Execution]
    in_worker = [(Execution.EXACT, True), (Execution.FUSED, True)]
    if metafunc.definition.get_closest_marker("in_worker") is not None:
        ways = in_worker
    elif metafunc.definition.get_closest_marker("in_kernel") is None:
        ways += in_worker
    metafunc.parametrize("_way", [_param(*way) for way in ways], indirect=True)


def _param(execution: Execution, in_process: bool) -> Any:
    """A way, by its name; one that starts a process for each test is not part of `make unit`."""
    name = f"{execution}{'-process' if in_process else ''}"
    return pytest.param(
        (execution, in_process), id=name, marks=[pytest.mark.starts_processes] * in_process
    )


@pytest.fixture(autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    execution, in_process = request.param
    monkeypatch.setattr(World, "execution", execution)
    monkeypatch.setattr(World, "in_process", in_process)
    monkeypatch.setattr(World, "fleets", [])
    yield
    for fleet in World.fleets:
        fleet.kill()
        fleet.close()


@pytest.fixture
def execution(_way: None) -> Execution:
    return World.execution
