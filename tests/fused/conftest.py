"""Joint steps over both layouts of their batches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rf_notebook.training.fused import joint_model


@pytest.fixture(scope="module", params=["packed", "padded"])
def layout(request: pytest.FixtureRequest) -> Iterator[str]:
    """Batches lie end to end, as they do wherever the model allows it, or in padded rows."""
    with pytest.MonkeyPatch.context() as patched:
        if request.param == "padded":
            patched.setattr(joint_model, "why_not_packed", lambda *_: "the test says so")
        yield request.param
