"""A real JupyterLab and a real Chromium, driven as a person would.

Cells are run, buttons clicked, outputs read.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Locator, Page

from tests import warm

#: As a container needs them; the rest keeps the browser from looking for its maker's servers.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_NO_NEWS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}
_START_SECONDS = 180
_BUSY_MS = 120_000


def chromium() -> str | None:
    """The system's browser; None for playwright's own."""
    return (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


class Lab:
    """A JupyterLab server with its own configuration.

    Nothing of the machine's is read or written.
    """

    def __init__(
        self, root: Path, own: Path, *, without: tuple[str, ...] = (), is_warm: bool = True
    ) -> None:
        """Start it.

        Args:
            root: What it serves.
            own: Its configuration.
            without: Names of extensions that are disabled.
            is_warm: Whether kernels begin with the libraries imported; otherwise they begin as a
                person's.
        """
        self.root, self.settings = root, own / "settings"
        if without:
            config = own / "config" / "labconfig" / "page_config.json"
            config.parent.mkdir(parents=True)
            config.write_text(json.dumps({"disabledExtensions": dict.fromkeys(without, True)}))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.token = secrets.token_hex(16)
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("JUPYTER", "JPY_"))
        }
        for name in ("CONFIG", "RUNTIME", "DATA"):
            environment[f"JUPYTER_{name}_DIR"] = str(own / name.lower())
        environment["JUPYTERLAB_SETTINGS_DIR"] = str(self.settings)
        environment["JUPYTERLAB_WORKSPACES_DIR"] = str(own / "workspaces")
        environment["IPYTHONDIR"] = str(own / "ipython")
        if is_warm:  # of all folders the first, so before the kernel of the virtual environment
            environment["JUPYTER_PATH"] = str(warm.kernel_spec(own / "warm"))
        for name, content in _NO_NEWS.items():
            path = self.settings / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        self._log = (own / "lab.log").open("w")
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            f"--port={self.port}",
        ]
        command += [
            "--ServerApp.ip=127.0.0.1",
            f"--IdentityProvider.token={self.token}",
            "--ServerApp.port_retries=0",
        ]
        command += [f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True"]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.api("api/status")
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < until, "JupyterLab did not start"
                time.sleep(0.2)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def api(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def stop_kernels(self) -> None:
        for session in self.api("api/sessions"):
            with contextlib.suppress(urllib.error.URLError):
                self.api(f"api/sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        self.stop_kernels()
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(5)
        self._log.close()


class Notebook:
    """A notebook that is open in a page."""

    def __init__(self, lab: Lab, page: Page, name: str) -> None:
        self.lab, self.page, self.name = lab, page, name

    @property
    def path(self) -> Path:
        return self.lab.root / self.name

    def open(self, *, kernel: bool = True) -> Notebook:
        self.page.goto(f"{self.lab.url}lab/tree/{self.name}?reset&token={self.lab.token}")
        self.page.wait_for_selector(
            ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell",
        )
        if kernel:
            self.wait_idle()
        return self

    def reopen(self, page: Page) -> None:
        """In a page that was reloaded, or in another tab."""
        page.goto(f"{self.lab.url}lab/tree/{self.name}?token={self.lab.token}")
        page.wait_for_selector(".rf-panel .rf-chart .main-svg")

    def wait_idle(self, timeout: int = _BUSY_MS) -> None:
        self.page.wait_for_function(
            """() => {
                const panel = window.jupyterapp?.shell?.currentWidget;
                return panel?.context?.isReady && panel.sessionContext?.session?.kernel?.status === 'idle';
            }""",
            timeout=timeout,
        )

    def start_cell(self, index: int) -> None:
        """Run a cell and do not wait for it."""
        self.page.evaluate(
            """(index) => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.activeCellIndex = index;
                notebook.deselectAll();
            }""",
            index,
        )
        self._start("notebook:run-cell")

    def start_all_cells(self) -> None:
        """Run the whole notebook and do not wait for it."""
        self._start("notebook:run-all-cells")

    def _start(self, command: str) -> None:
        self.page.evaluate(
            """(command) => {
                window.cellIsOver = false;
                void window.jupyterapp.commands.execute(command).finally(() => {
                    window.cellIsOver = true;
                });
            }""",
            command,
        )

    def run_cell(self, index: int, timeout: int = _BUSY_MS) -> None:
        """Run a cell until the kernel has answered."""
        self.start_cell(index)
        self.wait_over(timeout)

    def wait_over(self, timeout: int = _BUSY_MS) -> None:
        """Until what was started is over; that the kernel is idle says nothing before it began."""
        self.page.wait_for_function("() => window.cellIsOver", timeout=timeout)
        self.wait_idle(timeout)

    def outputs(self, index: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.page.evaluate(
            "(i) => window.jupyterapp.shell.currentWidget.content.widgets[i].model.toJSON().outputs",
            index,
        )
        return found

    def python(self, code: str, timeout: float = 60) -> Any:
        """What an expression is in the kernel, as JSON.

        Asked on the control channel, so a busy cell is no hindrance.

        The expression is evaluated by a small server thread of the test's notebook, never by the
        product.
        """
        answer = self.path.parent / f"answer-{secrets.token_hex(4)}.json"
        question = answer.with_suffix(".ask")
        question.with_suffix(".part").write_text(code)
        question.with_suffix(".part").rename(question)
        until = time.monotonic() + timeout
        while not answer.exists():
            assert time.monotonic() < until, f"the kernel did not answer {code!r}"
            self.page.wait_for_timeout(30)
        found = json.loads(answer.read_text())
        answer.unlink()
        assert "error" not in found, found["error"]
        return found["value"]

    def wait_python(self, code: str, timeout: float = 120) -> Any:
        """Until an expression is true in the kernel; returns it."""
        until = time.monotonic() + timeout
        while not (value := self.python(code)):
            assert time.monotonic() < until, f"never true: {code}; it is {value!r}"
            self.page.wait_for_timeout(100)
        return value

    @property
    def panel(self) -> Locator:
        return self.page.locator(".rf-panel").last

    def button(self, name: str) -> Locator:
        return self.panel.locator("button:visible", has_text=name).first

    def row(self, run_id: int) -> Locator:
        return self.panel.locator(f"tr[data-run='{run_id}']")

    def select(self, run_id: int) -> None:
        self.row(run_id).locator("td").nth(1).click()
        self.page.wait_for_function(
            "(run) => document.querySelector(`.rf-panel tr[data-run='${run}']`).ariaSelected === 'true'",
            arg=run_id,
        )

    def save(self) -> dict[str, Any]:
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        self.page.wait_for_timeout(500)
        loaded: dict[str, Any] = json.loads(self.path.read_text())
        return loaded


#: Answers what the test asks of the kernel, while cells run; the first cell of every test notebook.
ANSWERING = """
import glob, json, pathlib, threading, time
def _answer():
    while True:
        for name in glob.glob("answer-*.ask"):
            path = pathlib.Path(name)
            try:
                found = {"value": eval(path.read_text(), globals())}
                text = json.dumps(found)
            except Exception as error:
                text = json.dumps({"error": f"{type(error).__name__}: {error}"})
            path.unlink()
            part = path.with_suffix(".partial")
            part.write_text(text)
            part.rename(path.with_suffix(".json"))
        time.sleep(0.02)
threading.Thread(target=_answer, daemon=True).start()
"""


def write_notebook(path: Path, cells: list[str]) -> None:
    """A notebook of code cells."""
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    nbformat.write(made, str(path))


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        try:
            yield running
        finally:
            running.close()
