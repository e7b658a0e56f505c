"""One JupyterLab and one browser for all tests of this folder.

Each test has its own notebook and page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ui.lab import ANSWERING, Lab, Notebook, browser, write_notebook

#: Pictures of every state, to be looked at.
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"

#: What is waited for has come by then on a machine that is slow today; what has not will not come.
PATIENCE_MS = 90_000


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    running = Lab(tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter"))
    yield running
    running.stop()


@pytest.fixture
def plain_lab(lab: Lab, tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab as one has it who never installed the extension, over the same notebooks."""
    running = Lab(lab.root, tmp_path, without=("rf-notebook",), is_warm=False)
    yield running
    running.stop()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1300, "height": 1500})
    context.set_default_timeout(PATIENCE_MS)
    made = context.new_page()
    errors: list[str] = []
    made.on("pageerror", lambda error: errors.append(str(error)))
    yield made
    context.close()
    assert not errors, f"the page raised: {errors[:3]}"


@pytest.fixture
def notebook(
    lab: Lab, page: Any, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Notebook]]:
    """Opens a notebook of some cells, the first of which answers the test's questions."""

    def make(*cells: str) -> Notebook:
        folder = lab.root / request.node.name
        folder.mkdir(exist_ok=True)
        name = f"{request.node.name}/notebook.ipynb"
        write_notebook(lab.root / name, [ANSWERING, *cells])
        opened = Notebook(lab, page, name).open()
        opened.run_cell(0)
        return opened

    yield make
    lab.stop_kernels()


@pytest.fixture
def screenshot(page: Any) -> Callable[[str], None]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return lambda name: page.screenshot(path=str(SCREENSHOTS / f"{name}.png"))
