"""The policy in CONTRIBUTING is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rf_notebook.results.decisions import decisions_of
from tests.automation.test_policies import automated, runs, turn_to_the_end

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()


def test_the_policy_in_fifteen_lines_decides(tmp_path):
    code = TEXT.split("```python\n")[1].split("```")[0]
    made: dict[str, Any] = {}
    exec(code, made)
    world = automated(tmp_path, made["StopSlowest"](), runs(4))
    turn_to_the_end(world)
    decided = decisions_of(world.state)
    assert decided
    assert {one.policy for one in decided} == {"stop slowest"}
    assert all("is the highest of" in one.reason for one in decided)
    assert sum(str(record.state) == "completed" for record in world.state.runs.values()) >= 1
