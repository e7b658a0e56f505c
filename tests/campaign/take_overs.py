"""A process that trains is stopped, another one takes over, and the first one wakes up."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from rf_notebook.core.errors import StoreError
from rf_notebook.store import sqlite
from tests.campaign.part import Part
from tests.campaign.world import NAME, close, damaged_checkpoints, opened, shown, train

_STEP = 0.01


class TakeOvers(Part):
    """At any moment, for longer than a lease lasts or not at all stopped."""

    most_seconds = 120.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        sqlite._BUSY_SECONDS = 2.0  # noqa: SLF001 - one that was stopped while it wrote is waited for so long
        experiment = train(folder / "alone")
        assert experiment.wait(60)
        experiment.end()
        self.figures = _figures(shown(experiment))
        close(experiment)

    def attempt(self, draw: random.Random) -> str:
        """See Part."""
        place = self.folder / "taken"
        shutil.rmtree(place, ignore_errors=True)
        holder = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.holder", str(place), str(_STEP)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._wait_for_record(place, holder)
            time.sleep(draw.uniform(0, 0.6))
            is_stopped = draw.random() < 0.7
            if is_stopped:
                os.kill(holder.pid, signal.SIGSTOP)
            try:
                experiment = train(place, seconds=_STEP / 4, take_over=True)
            except StoreError as error:
                if "stopped in the middle" not in str(error):
                    raise
                os.kill(holder.pid, signal.SIGCONT)  # it was stopped while it wrote
                experiment = train(place, seconds=_STEP / 4, take_over=True)
            if is_stopped:
                time.sleep(draw.uniform(0, 0.4))
                os.kill(holder.pid, signal.SIGCONT)
            if not experiment.wait(60):
                return "it did not come to its end"
            ended, _ = holder.communicate(timeout=60)
            experiment.end()
            close(experiment)
        finally:
            if holder.poll() is None:
                os.kill(holder.pid, signal.SIGCONT)
                holder.kill()
                holder.wait()
        again = opened(place)
        try:
            faults = []
            if ended.split()[-1:] not in (["LOST"], ["OVER"]):
                faults.append(f"the first process said {ended!r}")
            if again.session.damage:
                faults.append(again.session.damage)
            if _figures(shown(again)) != self.figures:
                faults.append("other figures than without")
            faults += damaged_checkpoints(again)
            return "; ".join(faults)
        finally:
            close(again)

    def _wait_for_record(self, place: Path, holder: subprocess.Popen[str]) -> None:
        until = time.monotonic() + 60
        while not (place / NAME / "runs").exists():
            if holder.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the first process did not begin")
            time.sleep(0.01)


def _figures(text: str) -> str:
    """Without the messages, which tell of the take-over."""
    return text.rpartition("]], [")[0]
