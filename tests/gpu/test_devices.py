"""On a machine with several GPUs.

What trains there equals what trains where one is visible, whoever began it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="needs two GPUs; tests/training simulates them"
)
ROOT = Path(__file__).parents[2]


def life(folder, execution, visible, *more):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.gpu.devices",
            str(folder),
            execution,
            *map(str, more),
        ],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": visible},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["gpus"] == len(visible.split(","))
    return told["runs"]


@pytest.mark.parametrize("execution", ["exact", "fused"])
def test_all_methods_train_with_two_visible_gpus_as_with_one(tmp_path, execution):
    both, one = (life(tmp_path / name, execution, name) for name in ("0,1", "0"))
    assert {run: (state, error) for run, (state, error, _) in both.items()} == dict.fromkeys(
        both, ("completed", None)
    )
    assert len(both) == 6
    assert both == one


@pytest.mark.parametrize(("first", "second"), [("0", "0,1"), ("0,1", "0")])
def test_a_checkpoint_opens_where_another_number_of_gpus_is_visible(tmp_path, first, second):
    whole = life(tmp_path / "whole", "exact", "0")
    life(tmp_path / "cut", "exact", first, 1)
    assert life(tmp_path / "cut", "exact", second) == whole
