"""Who trained when?"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rf_notebook.views.document import Node, element
from rf_notebook.views.palette import colour
from rf_notebook.views.words import duration, shortened

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState

_MOST_TURNS = 400
_MOST_REWARDS = 8


def schedule(state: ExperimentState, *, width: int = 1000) -> Node:
    """Who had the device when: a bar a turn, training in the run's colour, the rest grey.

    The bars of runs that trained in joint steps are as long as those took for all of them.
    """
    turns = list(state.turns)[-_MOST_TURNS:]
    if not turns:
        return element("p", "Nothing has been trained yet.", class_="rf-dim")
    start = min(t.began_at for t in turns)
    end = max(t.ended_at for t in turns)
    span = max(end - start, 1e-9)
    lanes = {run_id: lane for lane, run_id in enumerate(sorted({t.run_id for t in turns}))}
    row, left, top = 22, 70, 8
    scale = (width - left - 10) / span
    bars: list[Node] = []
    for run_id, lane in lanes.items():
        y = top + lane * row
        bars.append(element("text", f"run {run_id}", x=8, y=y + 13, class_="rf-svg-text"))
        bars.append(
            element("line", x1=left, x2=width - 10, y1=y + 18, y2=y + 18, class_="rf-svg-line")
        )
    for turn in turns:
        y = top + lanes[turn.run_id] * row
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
            f"run {turn.run_id}: trained {turn.train_seconds:.2f} s"
            f"{f' (rewards: {rewards})' if rewards else ''}, "
            f"evaluated and saved {turn.overhead_seconds:.2f} s"
            f"{f'; its share of the joint steps of {turn.shared_by} runs' if turn.shared_by > 1 else ''}"
        )
        bars.append(
            element(
                "g",
                element("title", words),
                element(
                    "rect",
                    x=f"{x:.1f}",
                    y=y,
                    width=f"{max(trained, 1):.1f}",
                    height=14,
                    fill=colour(turn.run_id),
                ),
                element(
                    "rect",
                    x=f"{x + trained:.1f}",
                    y=y,
                    width=f"{rest:.1f}",
                    height=14,
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
    trained_seconds = sum(t.train_seconds for t in turns)
    rest_seconds = sum(t.overhead_seconds for t in turns)
    of_rewards: defaultdict[str, float] = defaultdict(float)
    for turn in turns:
        for name, seconds in turn.reward_seconds.items():
            of_rewards[name] += seconds
    lost = max(span - trained_seconds - rest_seconds, 0.0)
    words = (
        f"{duration(span)} in all: {trained_seconds / span:.1%} training, {rest_seconds / span:.1%} evaluating, saving and "
        f"building (grey), {lost / span:.1%} handing over and waiting."
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
