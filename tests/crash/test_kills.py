"""A killed process loses nothing committed, and continues as if never killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rf_notebook import Experiment
from rf_notebook.core.ports import CommitPoint
from rf_notebook.core.run import RunState
from rf_notebook.results.metrics import points_of
from rf_notebook.store.folders import verify_folder
from tests.crash import forked
from tests.thorough import few

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]  # minutes when the machine has other work
ROOT = Path(__file__).parents[2]


def curves(folder: Path) -> dict[int, list[tuple[int, dict[str, float]]]]:
    one = Experiment("crash", experiment_path=folder)
    try:
        return {
            run.id: [(p.step, dict(p.metrics)) for p in points_of(one.session.state, run.id)]
            for run in one.runs
        }
    finally:
        one.session.store.close()


def check_whole(
    folder: Path, expected: dict[int, list[tuple[int, dict[str, float]]]], execution: str
) -> None:
    """What was finished equals the uninterrupted, in joint steps up to rounding.

    Every checkpoint in use verifies; nothing lies about.
    """
    one = Experiment("crash", experiment_path=folder)
    state = one.session.state
    for run_id, record in state.runs.items():
        steps = [point.step for point in record.all_points()]
        assert steps == sorted(set(steps)), "a point was doubled"
        assert record.state is RunState.COMPLETED, f"run {run_id}: {record.state} {record.failure}"
        for saved in record.checkpoints:
            verify_folder(one.folder, saved.folder)
    in_use = {c.folder.path for r in state.runs.values() for c in r.checkpoints}
    in_use |= {r.warm_start.path for r in state.runs.values() if r.warm_start}
    found = {
        f.relative_to(one.folder).as_posix()
        for f in (one.folder / "runs").glob("*/*")
        if f.name != "trainer"
    }
    assert found == in_use
    one.session.store.close()
    found_curves = curves(folder)
    if execution == "exact":
        assert found_curves == expected
        return
    assert any(record.fused_with for record in state.runs.values())
    assert found_curves.keys() == expected.keys()
    for run_id, points in expected.items():
        for (step, before), (at, now) in zip(points, found_curves[run_id], strict=True):
            assert at == step
            assert now == pytest.approx(before, rel=1e-4, abs=1e-5, nan_ok=True)


@pytest.fixture(scope="module", params=["exact", "fused"])
def server(request):
    with forked.Server(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def uninterrupted(
    server: forked.Server, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, list[tuple[int, dict[str, float]]]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert server.life(folder) == 0
    return curves(folder)


@pytest.mark.parametrize("point", [point.name for point in CommitPoint])
def test_a_kill_at_each_point_of_the_commit(point, tmp_path, server, uninterrupted):
    assert server.life(tmp_path, kill_at=point, times=3) == -9
    assert server.life(tmp_path) == 0
    check_whole(tmp_path, uninterrupted, server.execution)


@pytest.mark.parametrize("token", few(1, [14, 3]))
def test_a_kill_in_the_middle_of_a_generation(token, tmp_path, server, uninterrupted):
    assert server.life(tmp_path, kill_at="TOKEN", times=token) == -9
    assert server.life(tmp_path) == 0
    check_whole(tmp_path, uninterrupted, server.execution)


@pytest.mark.parametrize("seed", few(1, [30, 31]))
def test_kills_at_random_moments(tmp_path, server, uninterrupted, seed):
    rng = random.Random(seed)
    kills, life = 0, 0
    while kills < (6 if server.execution == "exact" else 3):
        folder = tmp_path / str(life)
        for _ in range(rng.randint(2, 5)):
            life += 1
            kills += server.life(folder, kill_after=rng.uniform(0.1, 3.0)) == -9
        assert server.life(folder) == 0, "the last life must reach the end"
        check_whole(folder, uninterrupted, server.execution)


def test_a_second_kernel_looks_on_and_takes_over_when_the_first_dies(tmp_path):
    from rf_notebook import ReadOnlyExperiment
    from tests.crash import child

    # A process of its own: whoever kills it has killed the holder of the lease when it is gone.
    command = [sys.executable, "-W", "ignore", "-m", "tests.crash.child", str(tmp_path)]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline().startswith("experiment")
    while not first.stdout.readline().startswith("started"):
        pass
    second = child.experiment(str(tmp_path))
    with pytest.raises(
        ReadOnlyExperiment, match=rf"trained by process {first.pid} .*take_over=True"
    ):
        child.run(second)
    assert len(second.runs) >= 2
    deadline = time.monotonic() + 60
    while second.run(2).steps < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert second.run(2).steps >= 2, "the onlooker sees what the other commits"
    first.kill()
    first.wait()
    first.stdout.close()
    child.run(second)
    assert second.wait(timeout=120)
    assert second.run(2).state is RunState.COMPLETED
    second.end()
