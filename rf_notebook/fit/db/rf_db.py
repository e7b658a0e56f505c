"""Where does an experiment lie? As RapidFire AI's notebooks ask for it."""

from __future__ import annotations

from pathlib import Path

from rf_notebook.core.errors import ConfigError
from rf_notebook.session.registry import FOLDER, known_sessions, recorded_experiments
from rf_notebook.session.stage import current_stage


class RfDb:
    """RapidFire AI's database, of which its notebooks use one thing.

    Here, every experiment has its own record.
    """

    def get_experiments_path(self, experiment_name: str) -> Path:
        """The folder that the experiment's own folder lies in.

        Args:
            experiment_name: Of an experiment of this process, or of one that is recorded in the
                working directory.

        Raises:
            ConfigError: when there is none of that name.
        """
        stage = current_stage()
        if stage is not None:  # a replay runs the cell: its experiment lies elsewhere
            return stage.place_of(experiment_name)[1]
        known = {session.name: session.folder.parent for session in known_sessions()}
        if experiment_name in known:
            return known[experiment_name]
        recorded = recorded_experiments()
        if experiment_name in recorded:
            return Path(FOLDER).absolute()
        names = ", ".join(dict.fromkeys([*known, *recorded])) or "none"
        raise ConfigError(f"there is no experiment {experiment_name!r}; there are: {names}.")
