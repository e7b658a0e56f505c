"""Replays notebooks in a process of its own, and says what came of it.

``python -m tests.replay.replayer FILE...``.
"""

from __future__ import annotations

import json
import sys

from rf_notebook import ConfigError
from rf_notebook.shared import SharedExperiment


def replayed(path: str) -> dict[str, object]:
    try:
        shared = SharedExperiment(path)
        again = shared.replay(yes=True)
    except ConfigError as error:
        return {"error": str(error)}
    again.wait()
    again.end()
    compared = shared.compare(again)
    return {
        "messages": again.messages,
        "equal": bool(compared.equal.all()),
        "chunks": int(compared.chunks.sum()),
        "log": [
            (one["what"], one["run"], one["steps"], one["samples"], one["run_state"])
            for one in again.record()["operations"]
            if one["origin"] != "replay"
        ],
        "results": again.record()["results"],
    }


if __name__ == "__main__":
    print(json.dumps({path: replayed(path) for path in sys.argv[1:]}))
