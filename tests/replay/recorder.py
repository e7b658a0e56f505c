"""Runs notebooks as a kernel would, and exports what they recorded.

``python -m tests.replay.recorder FOLDER NAME...``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.replay.notebooks import NOTEBOOKS


def main() -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from rf_notebook import Experiment

    folder, *names = sys.argv[1:]
    os.chdir(folder)
    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    shell = InteractiveShell.instance(config=config)
    for name in names:
        shell.reset(new_session=True)
        for cell in NOTEBOOKS[name]:
            shell.run_cell(cell, store_history=True).raise_error()
        Experiment(name).export_notebook(Path(f"{name}.ipynb"))


if __name__ == "__main__":
    main()
