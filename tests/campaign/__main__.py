"""Tries everything in turn until the time is over, and adds what came of it to benchmarks/results/campaign.json."""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.campaign.flips import Flips
from tests.campaign.malformed import Malformed
from tests.campaign.notebooks import Notebooks
from tests.campaign.operations import Operations
from tests.campaign.part import Part
from tests.campaign.take_overs import TakeOvers

PARTS: dict[str, type[Part]] = {
    "flips": Flips,
    "take-overs": TakeOvers,
    "malformed": Malformed,
    "notebooks": Notebooks,
    "operations": Operations,
}
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "campaign.json"


@dataclass(slots=True)
class Tally:
    """Of one part."""

    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """In the results' file."""
        last = statistics.quantiles(self.seconds, n=100)[98] if len(self.seconds) > 1 else 0.0
        return {
            "tried": len(self.seconds),
            "survived": len(self.seconds) - len(self.faults),
            "faults": len(self.faults),
            "p99_ms": round(last * 1000, 1),
        }


class TooSlow(Exception):
    """An attempt took longer than anybody waits."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Whatever takes longer is interrupted."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(part: Part, name: str, seed: int, number: int, tally: Tally) -> None:
    """One attempt, which is the same for the same seed and number."""
    began = time.perf_counter()
    try:
        with within(part.most_seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fault = part.attempt(random.Random(f"{seed}/{name}/{number}"))
    except Exception:
        fault = traceback.format_exc()
    tally.seconds.append(time.perf_counter() - began)
    if fault:
        tally.faults.append(fault)
        again = f"{Path(sys.executable).name} -m tests.campaign --part {name} --seed {seed} --attempt {number}"
        print(f"\n{fault.strip()}\n  again: {again}", flush=True)


def add_to_results(tallies: dict[str, Tally], seed: int) -> None:
    """One entry for each call."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    calls = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    calls.append(
        {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "commit": commit.stdout.strip(),
            "seed": seed,
            "parts": {name: tally.as_json() for name, tally in tallies.items() if tally.seconds},
        }
    )
    RESULTS.write_text(json.dumps(calls, indent=1) + "\n")


def main() -> int:
    """How many faults there were."""
    arguments = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    arguments.add_argument("--part", choices=PARTS, action="append")
    arguments.add_argument("--attempt", type=int, help="only this one, and no results are written")
    asked = arguments.parse_args()
    tallies: dict[str, Tally] = {}
    names = asked.part or list(PARTS)
    for name in names:
        tally = tallies[name] = Tally()
        with (
            tempfile.TemporaryDirectory(prefix="campaign-") as folder,
            PARTS[name](Path(folder)) as part,
        ):
            if asked.attempt is not None:
                attempt(part, name, asked.seed, asked.attempt, tally)
                continue
            until, number = time.monotonic() + asked.minutes * 60 / len(names), 0
            while time.monotonic() < until:
                attempt(part, name, asked.seed, number, tally)
                number += 1
        print(f"{name}: {json.dumps(tally.as_json())}", flush=True)
    if asked.attempt is None:
        add_to_results(tallies, asked.seed)
    return min(99, sum(len(tally.faults) for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
