"""What do runs write?"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rf_notebook.views.document import Node, element
from rf_notebook.views.marks import dot
from rf_notebook.views.words import run_name

if TYPE_CHECKING:
    from rf_notebook.core.run import Generation
    from rf_notebook.core.state import ExperimentState


def samples(
    state: ExperimentState, selected: Collection[int], shown: Collection[int] | None = None
) -> Node:
    """What the runs answer to the sample prompts, and what they wrote in training.

    Args:
        state: The experiment's state.
        selected: Runs that are looked at by themselves; all when none of them has written.
        shown: The runs that the user looks at; all when None.
    """
    written = {
        run_id: state.written[run_id]
        for run_id in sorted(state.written)
        if run_id in state.runs and (shown is None or run_id in shown)
    }
    if selected:
        written = {
            run_id: event for run_id, event in written.items() if run_id in selected
        } or written
    if not written:
        words = "No samples: give run_fit sample_prompts=3 (rows of the evaluation data) or a list of texts."
        return element("p", words, class_="rf-dim")
    every = [one for event in written.values() for one in event.generations]
    prompts: dict[str, Generation] = {}
    for one in every:
        prompts.setdefault(one.prompt, one)
    has_answers = any(one.expected for one in every)
    heads = [
        element(
            "th", dot(run_id), f"{run_name(state, run_id)}, sample {event.samples}", scope="col"
        )
        for run_id, event in written.items()
    ]
    more = [element("th", "in the data", scope="col")] if has_answers else []
    rows = []
    for prompt, first in prompts.items():
        answers = []
        for event in written.values():
            answers.append(
                element("td", *(_written(g) for g in event.generations if g.prompt == prompt))
            )
        asked = element("th", first.asked or prompt, scope="row")
        expected = [element("td", first.expected, class_="rf-dim")] if has_answers else []
        rows.append(element("tr", asked, *expected, *answers))
    table = element(
        "table",
        element("thead", element("tr", element("th", "prompt"), *more, *heads)),
        element("tbody", *rows),
    )
    return element("div", table, class_="rf-samples")


def _written(generation: Generation) -> Node:
    rewards = ", ".join(f"{name} {value:.3g}" for name, value in generation.rewards.items())
    return element(
        "p", generation.text, element("span", f" {rewards}", class_="rf-dim") if rewards else None
    )
