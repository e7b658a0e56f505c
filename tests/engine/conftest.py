"""The engine's tests run over every execution, in the kernel and in a worker process."""

from __future__ import annotations

from collections.abc import Iterator

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
    names = [f"{execution}{'-process' if in_process else ''}" for execution, in_process in ways]
    metafunc.parametrize("_way", ways, ids=names, indirect=True)


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
