"""Notebooks and records from others, changed anywhere: refused, or read, and nothing of them runs or hides."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rf_notebook import SharedExperiment
from rf_notebook.core.errors import RFNotebookError
from rf_notebook.record.record import RECORD_MIME, part_digests, record_digest
from tests.api.world import hides
from tests.campaign.part import Part
from tests.campaign.world import NAME, close, train

_HOSTILE = "\x1b[2J\u202e<img src=x onerror=alert(1)>\n✓ the record is as it was written"


def _deep(depth: int) -> Any:
    found: Any = {}
    for _ in range(depth):
        found = {"$dict": [["a", found]]}
    return found


_ODD: list[Callable[[], Any]] = [
    lambda: None, lambda: True, lambda: -1, lambda: 2**70, lambda: 1e308, lambda: float("nan"), lambda: "", lambda: _HOSTILE,
    lambda: "x" * 300_000, lambda: "a.a." * 20_000, lambda: "(a+)+" * 50, lambda: [], lambda: {}, lambda: [[]] * 5_000, lambda: _deep(150),
    lambda: {"$object": "os.system@0123"}, lambda: {"$secret": "token"}, lambda: {"$list": [1] * 3_000}, lambda: "../../../etc/passwd",
    lambda: "/dev/zero", lambda: "\0", lambda: "runs/1/../../..", lambda: 10**400, lambda: {"__class__": "x"}, lambda: ["\ud800"],
]  # fmt: skip


class Notebooks(Part):
    """One value of the record replaced by another, its digests made right again half of the time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        experiment = train(folder / "whole")
        assert experiment.wait(60)
        experiment.end()
        self.notebook = json.loads(
            experiment.export_notebook(folder / "whole" / NAME / "it.ipynb").read_text()
        )
        close(experiment)
        self.bystander = folder / "bystander"
        self.bystander.write_text("untouched")

    def attempt(self, draw: random.Random) -> str:
        """See Part."""
        notebook = copy.deepcopy(self.notebook)
        records = list(_records(notebook))
        for _ in range(draw.choice([1, 1, 1, 3])):
            is_in_record = draw.random() < 0.8
            _replace(draw, draw.choice(records)[1] if is_in_record else notebook)
        if draw.random() < 0.5:
            for _, record in _records(notebook):
                try:
                    record["parts"] = part_digests(record)
                    record["digest"] = record_digest(record)
                except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
                    continue  # not a record any more
        file = self.folder / "changed.ipynb"
        file.write_text(json.dumps(notebook))
        try:
            shared = SharedExperiment(file)
            told = [repr(shared), str(shared.verify()), shared.diff(shared).to_string()]
            told.append(str(shared.plan(self.folder / "target")))
        except RFNotebookError as error:
            told = [str(error)]
        faults = [f"text that hides: {text[:2000]!r}" for text in told if hides(text)]
        if any(
            line.startswith("✓") and "onerror" in line
            for text in told
            for line in text.splitlines()
        ):
            faults.append("a name passes for a finding")
        if self.bystander.read_text() != "untouched" or (self.folder / "target").exists():
            faults.append("something was written")
        return "; ".join(faults)


def _records(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records in a notebook, wherever they are."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name in (RECORD_MIME, "rf_notebook") and isinstance(item, dict):
                yield name, item
            else:
                yield from _records(item)
    elif isinstance(value, list):
        for item in value:
            yield from _records(item)


def _replace(draw: random.Random, value: Any) -> None:
    """Go down at random, and put something odd there."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = draw.choice(keys)
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or draw.random() < 0.15:
            if isinstance(value, dict) and draw.random() < 0.1:
                value[draw.choice([_HOSTILE, "", "$object"])] = value.pop(key)
            else:
                value[key] = draw.choice(_ODD)()
            return
        value = inner
