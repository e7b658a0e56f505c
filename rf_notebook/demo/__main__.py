"""The quickstart in a terminal: ``python -m rf_notebook.demo [FOLDER]``.

Four configs train in turns; one is stopped, the best is cloned with a new learning rate and a warm
start.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.demo.quickstart import start

if TYPE_CHECKING:
    from rf_notebook.experiment import Experiment
    from rf_notebook.results.handle import Run


def main() -> None:
    """Run the demo and print a leaderboard."""
    folder = (
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else Path(tempfile.mkdtemp(prefix="rf_notebook_demo_"))
    )
    print(f"rf_notebook demo: four configs on one small base model, in {folder}\n", flush=True)
    started = time.monotonic()
    experiment = start("demo", folder)
    _until(experiment, lambda: all("eval_loss" in run.metrics for run in experiment.runs))
    ranked = sorted(experiment.runs, key=lambda run: run.metrics["eval_loss"])
    best, worst = ranked[0], ranked[-1]
    print(
        f"\n> after one chunk run {best.id} leads and run {worst.id} is last: stop the last",
        flush=True,
    )
    experiment.stop(worst).result(timeout=60)
    print(
        f"> clone run {best.id} with half its learning rate, from its adapter (warm start)\n",
        flush=True,
    )
    rate = best.config["training_args"]["learning_rate"]
    clone = experiment.clone(best, {"learning_rate": rate / 2}, warm_start=True).result(timeout=60)
    experiment.wait()
    print(f"\n{clone.warm_start_report.sentence() if clone.warm_start_report else 'no warm start'}")
    experiment.end()
    _leaderboard(experiment)
    print(f"\n{time.monotonic() - started:.0f} s in all; everything is in {folder / 'demo'}")


def _until(experiment: Experiment, condition: object) -> None:
    assert callable(condition)
    while not condition():
        if experiment.wait(timeout=0.5):
            return


def _leaderboard(experiment: Experiment) -> None:
    from rich.console import Console
    from rich.table import Table

    def final(run: Run) -> float:
        return run.metrics.get("eval_loss", float("inf"))

    table = Table(title="leaderboard")
    for title in ("", "run", "learning rate", "rank", "state", "trained", "loss", "eval loss"):
        table.add_column(title)
    for place, run in enumerate(sorted(experiment.runs, key=final), start=1):
        config, metrics = run.config, run.metrics
        table.add_row(
            str(place),
            f"{run.id}" + (f" (warm clone of {run.parent})" if run.parent else ""),
            f"{config['training_args']['learning_rate']:g}",
            str(config["peft_config"]["r"]),
            str(run.state),
            f"{run.progress:.0%}",
            f"{metrics.get('loss', float('nan')):.4f}",
            f"{final(run):.4f}",
        )
    Console(width=max(100, Console().width)).print(table)


if __name__ == "__main__":
    main()
