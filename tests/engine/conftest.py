"""The engine's tests run over every way in which runs share the device."""

import pytest

from rf_notebook.planning.fusion import Execution
from tests.engine.world import World


@pytest.fixture(autouse=True, params=list(Execution))
def execution(request, monkeypatch):
    monkeypatch.setattr(World, "execution", request.param)
    return request.param
