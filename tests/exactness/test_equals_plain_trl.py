"""Runs trained in chunks beside each other equal plain TRL alone in its own process.

Equality, not closeness.
"""

from __future__ import annotations

import itertools
import random
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunState
from rf_notebook.engine import turns
from rf_notebook.store.memory import MemoryStore
from rf_notebook.testing.anywhere import anywhere
from rf_notebook.testing.tiny import tiny_model
from tests import warm
from tests.exactness.cases import CASES, ON_CPU, data, names_of
from tests.exactness.harness import run_config, start, turn_all
from tests.exactness.worker import engine_in_worker, results_of
from tests.thorough import few

pytestmark = pytest.mark.slow

#: Those over quantised bases are in tests/training/test_quantised.py.
NAMES = [name for name, case in CASES.items() if case.quantised is None]
KINDS = sorted({CASES[name].data for name in NAMES})
#: Several kinds of adapters warn of what they are (no bias to fold into, no CUDA extension to compile).
ANY_ADAPTER = pytest.param("adapters", marks=pytest.mark.filterwarnings("ignore"))
#: Of them, those that most cases train on; in worker processes the others only differ in their data.
LARGE_KINDS = ["everything", "prompts"]


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What plain TRL gives for each config."""
    folder = tmp_path_factory.mktemp("plain")
    command = [
        *warm.python(),
        "-W",
        "ignore",
        "-m",
        "tests.exactness.plain_trl",
        str(folder),
        *NAMES,
    ]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=900)
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in NAMES}


def assert_equal(name: str, plain: dict[str, Any], ours: dict[str, Any]) -> None:
    for expected, found in zip(plain["history"], ours["history"], strict=True):
        assert found == expected, name
    assert ours["weights"].keys() == plain["weights"].keys(), name
    for tensor, expected in plain["weights"].items():
        assert torch.equal(ours["weights"][tensor], expected), f"{name}: {tensor}"


@pytest.mark.parametrize("kind", [ANY_ADAPTER, *(kind for kind in KINDS if kind != "adapters")])
def test_interleaved_runs_equal_plain_trl_bit_for_bit(
    kind: str, plain: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    names = names_of(kind)
    engine = start(tmp_path, names, data(kind), num_chunks=5)
    turn_all(engine)
    for run_id, name in enumerate(names, start=1):
        record = engine.state.record(run_id)
        assert record.state is RunState.COMPLETED, record.failure
        assert record.progress.chunks == record.progress.total_chunks >= 3, "it took turns"
        assert_equal(name, plain[name], engine.fleet.runner.results[run_id])  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", few(1, reversed(LARGE_KINDS)))
def test_runs_over_one_model_on_two_devices_equal_plain_trl_bit_for_bit(
    kind: str, plain: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    stages = 2 if ON_CPU or torch.cuda.device_count() > 1 else 1
    names, objects = names_of(kind), Objects()
    configs = [run_config(name, objects) for name in names]
    with engine_in_worker(
        tmp_path, data(kind), configs, objects, num_chunks=3, stages=stages
    ) as engine:
        turn_all(engine)
    for run_id, name in enumerate(names, start=1):
        record = engine.state.record(run_id)
        assert record.state is RunState.COMPLETED, record.failure
        assert_equal(name, plain[name], results_of(tmp_path, run_id))


@pytest.mark.parametrize("kind", few(1, LARGE_KINDS))
def test_runs_that_move_between_two_workers_at_random_equal_plain_trl_bit_for_bit(
    kind: str,
    plain: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, names, objects = random.Random(kind), names_of(kind), Objects()
    configs = [run_config(name, objects) for name in names]
    monkeypatch.setattr(turns, "place", partial(anywhere, rng))
    with engine_in_worker(
        tmp_path, data(kind), configs, objects, num_chunks=4, workers=2
    ) as engine:
        turn_all(engine)
    moves = 0
    for run_id, name in enumerate(names, start=1):
        record = engine.state.record(run_id)
        assert record.state is RunState.COMPLETED, record.failure
        assert_equal(name, plain[name], results_of(tmp_path, run_id))
        where = [turn.device for turn in engine.state.turns if turn.run_id == run_id]
        moves += sum(now != before for before, now in itertools.pairwise(where))
    assert moves >= len(names), "that is what is tested"


@pytest.mark.parametrize(
    "kind",
    [ANY_ADAPTER, *(kind for kind in KINDS if kind not in ("adapters", *LARGE_KINDS))],
)
def test_runs_continued_from_checkpoints_by_another_runner_equal_plain_trl(
    kind: str, plain: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Those of the large kinds do so when they move between workers, above."""
    names, store = names_of(kind), MemoryStore()
    first = start(tmp_path, names, data(kind), num_chunks=5, store=store)
    for _ in range(3):  # three times nothing of the process survives but the folder and the log
        turn_all(first, turns=len(names) * 2 - 1)
        first.fleet.close()
        first = start(tmp_path, names, data(kind), num_chunks=5, store=store)
    turn_all(first)
    for run_id, name in enumerate(names, start=1):
        assert first.state.record(run_id).state is RunState.COMPLETED, first.state.record(
            run_id
        ).failure
        if run_id in first.fleet.runner.results:  # type: ignore[attr-defined]
            assert_equal(name, plain[name], first.fleet.runner.results[run_id])  # type: ignore[attr-defined]
        points = list(first.state.record(run_id).all_points())
        steps = [point.step for point in points]
        assert steps == sorted(set(steps)), name


def test_the_shared_base_is_untouched_by_training(tmp_path: Path) -> None:
    names = ["sft_cosine_dropout", "sft_full_fine_tuning", "sft_dora"]
    engine = start(tmp_path, names, data("prompts"), num_chunks=2)
    turn_all(engine, turns=5)
    (base,) = engine.fleet.runner.models.loaded.values()  # type: ignore[attr-defined]
    for (name, found), (_, expected) in zip(
        base.model.named_parameters(), tiny_model().named_parameters(), strict=True
    ):
        assert torch.equal(found.cpu(), expected), name
