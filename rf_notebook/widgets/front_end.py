"""What can the front end show that this process talks to?"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from enum import StrEnum


class FrontEnd(StrEnum):
    """Where output goes."""

    SCRIPT = "a script"
    TERMINAL = "IPython in a terminal"
    JUPYTER = "a Jupyter server"
    """JupyterLab or Notebook: widgets are live, also while a cell blocks."""
    VSCODE = "VS Code"
    """Widgets are live, but not while a cell blocks (microsoft/vscode-jupyter#17360)."""
    COLAB = "Google Colab"
    """Updates from threads are not shown (googlecolab/colabtools#3373)."""
    KAGGLE = "Kaggle"
    MARIMO = "marimo"
    """Shows anywidgets, but no ipywidgets that hold others, as the panel is."""
    HEADLESS = "a kernel without a known front end"
    """nbclient, papermill, a console: widgets would only fill the saved notebook with dead state."""

    @property
    def shows_widgets(self) -> bool:
        """Whether the live panel is worth sending."""
        return self in (FrontEnd.JUPYTER, FrontEnd.VSCODE)

    @property
    def is_notebook(self) -> bool:
        """Whether rich output is kept that IPython's ``display`` is given."""
        return self not in (FrontEnd.SCRIPT, FrontEnd.TERMINAL, FrontEnd.MARIMO)


def front_end(environment: Mapping[str, str] = os.environ) -> FrontEnd:
    """The front end of this process; loads nothing.

    Source: jupyter_server sets JPY_SESSION_NAME for a notebook's kernel
    (services/sessions/sessionmanager.py); nbclient and papermill start kernels without it.
    """
    marimo = sys.modules.get("marimo")
    if marimo is not None and marimo.running_in_notebook():
        return FrontEnd.MARIMO
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return FrontEnd.SCRIPT
    if not hasattr(shell, "kernel"):
        return FrontEnd.TERMINAL
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in environment:
        return FrontEnd.COLAB
    if "KAGGLE_KERNEL_RUN_TYPE" in environment:
        return FrontEnd.KAGGLE
    if "VSCODE_PID" in environment or "VSCODE_CWD" in environment:
        return FrontEnd.VSCODE
    return FrontEnd.JUPYTER if "JPY_SESSION_NAME" in environment else FrontEnd.HEADLESS
