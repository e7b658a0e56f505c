"""Which runs are meant by 3, 3,5, 2-4, best and all?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.operations import ALLOWED_FROM, BY_VERB
from rf_notebook.core.run import RunState

if TYPE_CHECKING:
    from rf_notebook.experiment import Experiment
    from rf_notebook.results.handle import Run


def parse_run_ids(
    words: Sequence[str], experiment: Experiment, *, verb: str | None = None
) -> list[int]:
    """The runs that are meant: 3, 3,5, 2-4, best, all.

    Args:
        words: As typed.
        experiment: Whose runs.
        verb: With it, "all" means the runs that this can be done to.

    Raises:
        ConfigError: for words that mean none.
    """
    found: list[int] = []
    for part in (piece for word in words for piece in word.split(",") if piece):
        low, dash, high = part.partition("-")
        if part == "best":
            found.append(experiment.best().id)
        elif part == "all":
            found.extend(run.id for run in experiment.runs if _can(verb, run))
        elif dash and low.isdigit() and high.isdigit() and int(high) - int(low) < 10_000:
            known = {run.id for run in experiment.runs}
            if int(low) not in known or int(high) not in known:
                experiment.run(
                    int(low if int(low) not in known else high)
                )  # raises, naming the runs that there are
            found.extend(i for i in range(int(low), int(high) + 1) if i in known)
        elif part.isdigit():
            found.append(experiment.run(int(part)).id)
        else:
            raise ConfigError(
                f"{part!r} is not a run; write an id (3), several (3,5 or 2-4), best or all."
            )
    if not found:
        raise ConfigError("no run is meant; write an id (3), several (3,5 or 2-4), best or all.")
    return list(dict.fromkeys(found))


def _can(verb: str | None, run: Run) -> bool:
    if verb is None:
        return run.state is not RunState.DELETED
    return run.state in ALLOWED_FROM[BY_VERB[verb]]
