"""How does JupyterLab hear of this kernel's experiments, and this kernel of JupyterLab's clicks?

One comm a kernel, made when the first experiment is. It is never opened on the wire: a
``comm_open`` that a page does not know is answered with a ``comm_close``, which would take it from
the pages that do. A page adopts it when it hears its announcement or any later message, or finds it
in the kernel's list of comms; pages without the extension pass it over. Nothing is computed before
a page said hello.

The twin of labextension/src/link.ts.
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.receipt import Receipt
from rf_notebook.jupyterlab.commands import LATER, obey
from rf_notebook.jupyterlab.experiments import ExperimentsView
from rf_notebook.jupyterlab.protocol import (
    TARGET,
    Command,
    Hello,
    ProtocolMismatch,
    changes,
    message,
    read_message,
)
from rf_notebook.views import palette
from rf_notebook.widgets.elements import deliver_while_busy
from rf_notebook.widgets.pump import Pump

if TYPE_CHECKING:
    from rf_notebook.core.values import Json
    from rf_notebook.jupyterlab.protocols import Experiments

#: A page that was loaded while a cell blocks can ask for nothing: it sees everything after so many
#: seconds.
_WHOLE_SECONDS = 10.0
#: Between two patches, when the page does not say; a command's effect is told at once.
_EVERY_SECONDS = 2.0


class Comm(Protocol):
    """What is used of a Jupyter comm."""

    def send(self, data: dict[str, Json]) -> None:
        """To all pages."""

    def on_msg(self, callback: Callable[[Any], None]) -> None:
        """How to receive."""


class Link:
    """The kernel's end."""

    def __init__(self, experiments: Experiments, comm: Comm, version: str) -> None:
        """A link that has announced itself.

        Args:
            experiments: What is told about.
            comm: To all pages.
            version: Of this package.
        """
        self._experiments = experiments
        self._comm = comm
        self._version = version
        self._view = ExperimentsView(experiments)
        self._lock = threading.RLock()
        self._sent: dict[str, Json] = {}
        self._seq = 0
        self._whole_at = 0.0
        self._pending: list[tuple[str, Receipt[Any]]] = []
        self._pump: Pump | None = None
        comm.on_msg(lambda message: self.receive(message["content"]["data"]))
        self._send("announce")

    def receive(self, data: object) -> None:
        """Take a page's message; any thread."""
        try:
            heard = read_message(data, self._version)
        except ProtocolMismatch as error:
            self._send("mismatch", sentence=str(error))
            return
        except RFNotebookError as error:
            named = data.get("id") if isinstance(data, dict) else None
            if isinstance(named, str):
                self._send("answer", id=named, error=str(error))
            return
        match heard:
            case Hello():
                self._welcome(heard)
            case Command():
                self._obey(heard)

    def publish(self) -> None:
        """Tell what changed, and how commands went."""
        with self._lock:
            now = self._view.now()
            patch = changes(self._sent, now)
            if patch:
                self._sent = now
                self._seq += 1
                if time.monotonic() - self._whole_at > _WHOLE_SECONDS:
                    self._send_whole()
                else:
                    self._send("patch", seq=self._seq, changes=patch)
            for command_id, receipt in [pair for pair in self._pending if pair[1].done()]:
                self._pending.remove((command_id, receipt))
                self._answer(command_id, receipt)

    def close(self) -> None:
        """Say no more."""
        if self._pump is not None:
            self._pump.end()

    def _welcome(self, hello: Hello) -> None:
        palette.choose(hello.colours)
        with self._lock:
            self._sent = self._view.now()
            self._send_whole()
            if self._pump is None or not self._pump.is_alive:
                self._pump = Pump(
                    self._experiments.wait_for_change,
                    self.publish,
                    name="jupyterlab",
                    on_error=self._draw_failed,
                )
                self._pump.start()
            self._pump.every_seconds = hello.every_seconds or _EVERY_SECONDS

    def _send_whole(self) -> None:
        self._whole_at = time.monotonic()
        self._send("snapshot", seq=self._seq, state=self._sent)

    def _obey(self, command: Command) -> None:
        try:
            answer = obey(
                command, self._experiments, lambda error: self._answer_later(command.id, error)
            )
        except Exception as error:  # noqa: BLE001 - told where it was asked; a click must not fail the kernel
            self._send("answer", id=command.id, error=str(error) or type(error).__name__)
            return
        if answer is LATER:
            return
        if not isinstance(answer, Receipt):
            self._send("answer", id=command.id, value=answer)
        elif answer.done():
            self._answer(command.id, answer)
        else:
            with self._lock:
                self._pending.append((command.id, answer))
            answer.when_done(self._wake)

    def _answer(self, command_id: str, receipt: Receipt[Any]) -> None:
        self._answer_later(command_id, _error_of(receipt))

    def _answer_later(self, command_id: str, error: BaseException | None) -> None:
        if error is None:
            self._send("answer", id=command_id, value={})
        else:
            self._send("answer", id=command_id, error=str(error) or type(error).__name__)

    def _wake(self) -> None:
        if self._pump is not None:
            self._pump.wake()

    def _draw_failed(self, text: str) -> None:
        self._send(
            "mismatch",
            sentence=f"the kernel could not describe its experiments: {text.strip().splitlines()[-1]}",
        )

    def _send(self, kind: str, **content: Json) -> None:
        self._comm.send(message(kind, self._version, **content))


def _error_of(receipt: Receipt[Any]) -> BaseException | None:
    try:
        receipt.result(timeout=0)
    except Exception as error:  # noqa: BLE001 - a refusal is told where it was asked
        return error
    return None


_links: list[Link] = []


def connect(experiments: Callable[[], Experiments]) -> None:
    """Let JupyterLab know of this kernel; a second time changes nothing.

    Args:
        experiments: Makes what is told about, at the first time.
    """
    if _links:
        return
    from comm import create_comm, get_comm_manager

    comm = deliver_while_busy(create_comm(target_name=TARGET, primary=False))
    get_comm_manager().register_comm(comm)
    _links.append(Link(experiments(), comm, importlib.metadata.version("rf-notebook")))
