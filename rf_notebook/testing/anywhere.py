"""A placement that lets runs go from device to device as often as they can."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from rf_notebook.planning.placement import Candidate, Give, Slot


def anywhere(
    rng: random.Random, waiting: Iterable[Candidate], slots: Sequence[Slot], **_costs: float
) -> list[Give]:
    """Give each free device any run that may go there, one from elsewhere if there is any.

    Args:
        rng: Draws it.
        waiting: As for ``planning.placement.place``.
        slots: All devices.
    """
    left, gives = list(waiting), []
    for slot in slots:
        here = [run for run in left if run.home in (None, slot.name)]
        others = [run for run in left if run not in here and not (run.in_chunk or run.is_bound)]
        able = others or here
        if slot.is_free and able:
            chosen = rng.choice(able)
            left.remove(chosen)
            gives.append(Give(device=slot.name, run_ids=(chosen.run_id,)))
    return gives
