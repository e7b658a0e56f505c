"""A process that trains the campaign's experiment until it is over or taken from it: FOLDER SECONDS."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from rf_notebook.core.errors import LeaseLost
from tests.campaign.world import close, train


def main() -> None:
    """Says how it ended."""
    warnings.simplefilter("ignore")
    experiment = train(Path(sys.argv[1]), seconds=float(sys.argv[2]))
    try:
        experiment.wait()
        close(experiment)
    except LeaseLost:
        print("LOST")
    else:
        print("OVER")


if __name__ == "__main__":
    main()
