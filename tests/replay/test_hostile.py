"""Files from people who mean no good.

Nothing runs, nothing is written or fetched, memory is bounded, one sentence each.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests import warm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
#: Of memory that one file may take beyond what was taken before.
MOST_MIB = 300


def test_hostile_files_are_one_sentence_each(tmp_path):
    kit = tmp_path / "kit"
    kit.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def python(*arguments, cwd):
        command = [*warm.python(), "-W", "ignore", "-m", *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=380,
            check=False,
        )

    made = python("tests.replay.recorder", kit, "stops", cwd=ROOT)
    assert made.returncode == 0, made.stderr[-2000:]
    files, elsewhere = tmp_path / "files", tmp_path / "elsewhere"
    files.mkdir()
    elsewhere.mkdir()
    done = python("tests.replay.hostile", files, kit / "stops.ipynb", cwd=elsewhere)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) >= 200
    assert not list(elsewhere.iterdir())
    for one in results:
        assert one["outcome"] in ("read", "refused"), one
        assert one["broken"] == [], one
        assert one["MiB"] < MOST_MIB, one
        if one["outcome"] == "refused":
            assert one["told"].endswith("."), one
            assert "\n" not in one["told"], one
            assert len(one["told"]) < 500, one
            assert "\x1b" not in one["told"], one
    refused = [one["file"] for one in results if one["outcome"] == "refused"]
    assert len(refused) > 120
    assert {name.partition("-")[2] for name in refused} >= {
        "bomb.zip",
        "link.zip",
        "pickle.ipynb",
        "huge.ipynb",
        "folder-link",
    }
