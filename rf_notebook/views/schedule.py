"""Who trained when?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import TYPE_CHECKING

from rf_notebook.views.document import Node, element
from rf_notebook.views.palette import colour
from rf_notebook.views.words import duration, shortened

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, TrainedTurn

_MOST_TURNS = 400
_MOST_REWARDS = 8
#: Height of a bar.
_BAR = 14


def schedule(
    state: ExperimentState, shown: Collection[int] | None = None, *, width: int = 1000
) -> Node:
    """Who had the device when: a bar a turn, training in the run's colour, the rest grey.

    The bars of runs that trained together are as long as that took for all of them. There is
    a lane for each run; where several devices trained, one for each device, in which runs that
    shared a step lie one above the other.

    Args:
        state: The experiment's state.
        shown: The runs that the user looks at; all when None.
        width: In pixels.
    """
    turns = [turn for turn in list(state.turns) if shown is None or turn.run_id in shown]
    turns = turns[-_MOST_TURNS:]
    if not turns:
        return element("p", "Nothing has been trained yet.", class_="rf-dim")
    start = min(t.began_at for t in turns)
    end = max(t.ended_at for t in turns)
    span = max(end - start, 1e-9)
    by_device = len({turn.device for turn in turns}) > 1
    lanes: dict[int | str, int] = {}
    for turn in sorted(turns, key=lambda turn: (turn.device if by_device else "", turn.run_id)):
        lanes.setdefault(_lane(turn, by_device), len(lanes))
    row, left, top = 22, 70, 8
    scale = (width - left - 10) / span
    bars: list[Node] = []
    for name, lane in lanes.items():
        y = top + lane * row
        words = (name or "kernel") if isinstance(name, str) else f"run {name}"
        bars.append(element("text", words, x=8, y=y + 13, class_="rf-svg-text"))
        bars.append(
            element("line", x1=left, x2=width - 10, y1=y + 18, y2=y + 18, class_="rf-svg-line")
        )
    for turn in turns:
        height = _BAR / turn.shared_by if by_device else _BAR
        down = turn.place * height if by_device else 0.0
        upper = top + lanes[_lane(turn, by_device)] * row + down
        x = left + (turn.began_at - start) * scale
        trained, rest = (
            seconds * turn.shared_by * scale
            for seconds in (turn.train_seconds, turn.overhead_seconds)
        )
        rewards = ", ".join(
            f"{shortened(name, 40)} {seconds:.2f} s"
            for name, seconds in turn.reward_seconds.items()
        )
        words = (
            f"run {turn.run_id}{f' on {turn.device}' if turn.device else ''}: "
            f"trained {turn.train_seconds:.2f} s"
            f"{f' (rewards: {rewards})' if rewards else ''}, "
            f"evaluated and saved {turn.overhead_seconds:.2f} s"
            f"{f'; its share of what {turn.shared_by} runs took together' if turn.shared_by > 1 else ''}"
        )
        bars.append(
            element(
                "g",
                element("title", words),
                element(
                    "rect",
                    x=f"{x:.1f}",
                    y=f"{upper:.1f}",
                    width=f"{max(trained, 1):.1f}",
                    height=f"{height:.1f}",
                    fill=colour(turn.run_id),
                ),
                element(
                    "rect",
                    x=f"{x + trained:.1f}",
                    y=f"{upper:.1f}",
                    width=f"{rest:.1f}",
                    height=f"{height:.1f}",
                    class_="rf-svg-rest",
                ),
            )
        )
    axis = top + len(lanes) * row + 12
    for part in range(6):
        x = left + part / 5 * (width - left - 10)
        text = element(
            "text",
            duration(part / 5 * span),
            x=f"{x:.0f}",
            y=axis,
            class_="rf-svg-text",
            text_anchor="middle",
        )
        bars.append(text)
    of_rewards: defaultdict[str, float] = defaultdict(float)
    for turn in turns:
        for name, seconds in turn.reward_seconds.items():
            of_rewards[name] += seconds
    # Of all runs: what those that are not shown did was no waiting.
    every = [turn for turn in list(state.turns) if start <= turn.began_at and turn.ended_at <= end]
    devices = len({turn.device for turn in every})
    trained_part, rest_part, lost_part = shares(
        sum(turn.train_seconds for turn in every),
        sum(turn.overhead_seconds for turn in every),
        span * devices,
    )
    words = (
        f"{duration(span)} in all{f' on {devices} devices' if devices > 1 else ''}: "
        f"{trained_part:.1f}% training, {rest_part:.1f}% evaluating, saving and "
        f"building (grey), {lost_part:.1f}% handing over and waiting."
    )
    if of_rewards:
        told = ", ".join(
            f"{shortened(name, 40)} {seconds:,.1f} s"
            for name, seconds in list(of_rewards.items())[:_MOST_REWARDS]
        )
        words += f" Of the training, reward functions took: {told}."
    picture = element(
        "svg",
        *bars,
        viewBox=f"0 0 {width} {axis + 8}",
        width="100%",
        role="img",
        aria_label=f"Who trained when. {words}",
    )
    return element("div", picture, element("p", words, class_="rf-dim"))


def shares(trained: float, rest: float, had: float) -> tuple[float, float, float]:
    """How a time is divided, in tenths of a percent that add up to 100.

    Args:
        trained: Seconds of training.
        rest: Of what came with it; that of it which was done while others trained counts as training.
        had: All that there was.

    Returns:
        Percent of training, of the rest, and of neither.
    """
    trained = min(trained, had)
    rest = min(rest, had - trained)
    tenths = [round(1000 * part / had) for part in (trained, rest)]
    tenths[1] = min(tenths[1], 1000 - tenths[0])
    return tenths[0] / 10, tenths[1] / 10, (1000 - sum(tenths)) / 10


def _lane(turn: TrainedTurn, by_device: bool) -> int | str:
    """What a turn's lane is of: its run, or its device."""
    return turn.device if by_device else turn.run_id
