"""One bit flipped, or a file cut: it is told, or what is shown is what was recorded."""

from __future__ import annotations

import random
import shutil
import warnings
from pathlib import Path

from rf_notebook import Experiment, SharedExperiment
from rf_notebook.core.errors import IllegalOperation, RFNotebookError
from tests.api.world import curve
from tests.campaign.part import Part
from tests.campaign.world import NAME, close, damaged_checkpoints, opened, shown, train

#: Whose texts are no figures: what happened, and how the panel is arranged.
_NOT_CHECKED = ("experiment.log", "panel.json")


class Flips(Part):
    """Over every file of an experiment's folder, and of its exported notebook."""

    most_seconds = 20.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        experiment = train(folder / "whole")
        assert experiment.wait(60)
        experiment.export_notebook(folder / "whole" / NAME / "shared.ipynb")
        experiment.end()
        close(experiment)
        experiment = opened(folder / "whole")
        self.shown = shown(experiment)
        self.record = SharedExperiment(folder / "whole" / NAME / "shared.ipynb").record
        close(experiment)
        self.files = sorted(
            file.relative_to(folder / "whole" / NAME)
            for file in (folder / "whole" / NAME).rglob("*")
            if file.is_file() and file.stat().st_size and file.name not in _NOT_CHECKED
        )

    def attempt(self, draw: random.Random) -> str:
        """See Part."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder / "whole", copy)
        # The record weighs most: everything that is shown comes from it.
        name = Path("experiment.sqlite") if draw.random() < 0.5 else draw.choice(self.files)
        file = copy / NAME / name
        data = bytearray(file.read_bytes())
        place = draw.randrange(len(data))
        if draw.random() < 0.2:
            del data[place:]
            what = f"{name} cut after {place} bytes"
        else:
            data[place] ^= 1 << draw.randrange(8)
            what = f"a bit of byte {place} of {name} flipped"
        file.write_bytes(data)
        if name.name == "shared.ipynb":
            return self._of_notebook(file, what)
        return self._of_folder(copy, what, is_checkpoint=name.parts[0] == "runs")

    def _of_notebook(self, file: Path, what: str) -> str:
        try:
            shared = SharedExperiment(file)
        except RFNotebookError:
            return ""
        if shared.record == self.record or not shared.verify():
            return ""
        return f"{what}: another record verifies"

    def _of_folder(self, copy: Path, what: str, *, is_checkpoint: bool) -> str:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                experiment = opened(copy)
            except RFNotebookError:
                return ""
        try:
            is_told = any("damaged" in str(one.message) for one in told)
            if is_checkpoint:
                is_told = bool(damaged_checkpoints(experiment))
                return "" if is_told else f"{what}: a checkpoint that passes for what was recorded"
            if is_told:
                return self._repaired(experiment, what)
            if shown(experiment) != self.shown:
                return f"{what}: something else is shown and nothing told"
            return ""
        finally:
            close(experiment)

    def _repaired(self, experiment: Experiment, what: str) -> str:
        """What was sure is still shown, and nothing is damaged any more."""
        sure = [[run.id, curve(experiment, run.id)] for run in experiment.runs]
        try:
            experiment.repair()
        except IllegalOperation:
            return ""  # nothing was sure
        if experiment.session.damage:
            return f"{what}: repaired, it is still damaged"
        if [[run.id, curve(experiment, run.id)] for run in experiment.runs] != sure:
            return f"{what}: repairing changed what was sure"
        return ""
