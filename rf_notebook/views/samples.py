"""What do runs write?"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rf_notebook.views.document import Node, element
from rf_notebook.views.marks import dot

if TYPE_CHECKING:
    from rf_notebook.core.run import Generation
    from rf_notebook.core.state import ExperimentState


def samples(state: ExperimentState, selected: Collection[int]) -> Node:
    """What the runs answer to the sample prompts, and what they wrote in training."""
    written = {
        run_id: state.written[run_id] for run_id in sorted(state.written) if run_id in state.runs
    }
    if selected:
        written = {
            run_id: event for run_id, event in written.items() if run_id in selected
        } or written
    if not written:
        words = "No samples: give run_fit sample_prompts=3 (rows of the evaluation data) or a list of texts."
        return element("p", words, class_="rf-dim")
    prompts = list(dict.fromkeys(g.prompt for event in written.values() for g in event.generations))
    heads = [
        element("th", dot(run_id), f"run {run_id}, sample {event.samples}", scope="col")
        for run_id, event in written.items()
    ]
    rows = []
    for prompt in prompts:
        answers = []
        for event in written.values():
            answers.append(
                element("td", *(_written(g) for g in event.generations if g.prompt == prompt))
            )
        rows.append(element("tr", element("th", prompt, scope="row"), *answers))
    table = element(
        "table",
        element("thead", element("tr", element("th", "prompt"), *heads)),
        element("tbody", *rows),
    )
    return element("div", table, class_="rf-samples")


def _written(generation: Generation) -> Node:
    rewards = ", ".join(f"{name} {value:.3g}" for name, value in generation.rewards.items())
    return element(
        "p", generation.text, element("span", f" {rewards}", class_="rf-dim") if rewards else None
    )
