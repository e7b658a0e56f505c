"""What are the GPUs of this machine? Asked in a process that ends, so that the kernel makes no context."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.fleet import DeviceFacts

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from rf_notebook.training.device import tell_gpus; tell_gpus()"
)
#: Importing torch on a machine that is at work takes a while.
_SECONDS = 120.0


def probed(names: Sequence[str]) -> tuple[DeviceFacts, ...]:
    """What is known of devices before anything trains on them.

    Args:
        names: "cpu", "cuda:N", or several joined by "+" on which a run is spread; each here.

    Raises:
        ConfigError: when a GPU does not answer.
    """
    gpus = _gpus() if any("cuda" in name for name in names) else []
    return tuple(_facts(name, gpus) for name in names)


def _facts(name: str, gpus: Sequence[Any]) -> DeviceFacts:
    parts = name.split("+")
    own = [gpus[int(part.removeprefix("cuda:"))] for part in parts if part != "cpu"]
    if not own:
        return DeviceFacts(name=name, gpus=len(parts))
    return DeviceFacts(
        name=name,
        gpus=len(parts),
        environment=own[0]["environment"],
        used_bytes=sum(one["used_bytes"] for one in own),
        total_bytes=sum(one["total_bytes"] for one in own),
        has_bf16=all(one["has_bf16"] for one in own),
    )


def _gpus() -> list[Any]:
    """Fields of DeviceFacts, of every visible GPU."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE, json.dumps(sys.path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        told: list[Any] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"the GPUs of this machine do not answer: {error}.") from error
    if not told:
        ended = f"status {done.returncode}" if done.returncode else "a new process sees none"
        words = done.stderr.strip().splitlines()[-1:] or [ended]
        raise ConfigError(f"the GPUs of this machine do not answer: {words[0]:.300}.")
    return told
