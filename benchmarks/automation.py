"""Does a policy find the config that full training finds, and with how little training?

``halving``: sixteen configs whose ranking after full training is known (``ranking``). ``optuna``:
suggestions that learn, against as many samples of random search. Both through ``run_fit``, as a
user calls it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import kit, ranking
from benchmarks.report import Report
from rf_notebook import Experiment
from rf_notebook.automation import Halving
from rf_notebook.automl import (
    List,
    Range,
    RFLoraConfig,
    RFModelConfig,
    RFOptuna,
    RFRandomSearch,
    RFSFTConfig,
)

CHUNKS = 16


def _trained(
    folder: Path, name: str, search: Any, data: tuple[Any, Any], loaded: Any, **more: Any
) -> Experiment:
    experiment = Experiment(name, experiment_path=folder)
    experiment.run_fit(search, lambda _: loaded, *data, display=False, **more)
    experiment.wait()
    experiment.end()
    return experiment


def _samples(experiment: Experiment) -> int:
    return sum(run.samples for run in experiment.runs)


def measure_halving(report: Report) -> None:
    """Successive halving over the ranked configs."""
    loaded, data, known = kit.create_model({}), ranking.data(), ranking.known_losses()
    hits, shares = 0, []
    for seed in ranking.SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            made = _trained(
                Path(folder),
                "halving",
                ranking.search(seed),
                data,
                loaded,
                num_chunks=CHUNKS,
                policy=Halving(),
            )
            (winner,) = (run for run in made.runs if run.state == "completed")
            config = winner.config
            found = ranking.name_of(
                config["peft_config"]["target_modules"],
                config["training_args"]["learning_rate"],
                config["training_args"]["per_device_train_batch_size"],
            )
            expected = min(known[seed], key=lambda name: known[seed][name])
            shares.append(_samples(made) / (len(made.runs) * ranking.ROWS))
            hits += found == expected
            loss = winner.metrics["eval_loss"]
            report.row(
                f"seed {seed}: {found}, first in full training: {expected}",
                loss,
                "eval_loss of the winner",
            )
            report.row(f"seed {seed}: its loss in plain TRL", known[seed][found], "eval_loss")
    report.row("the same winner", float(hits), f"of {len(ranking.SEEDS)} seeds (must 9 of 10)")
    report.row("samples trained", max(shares), "of those of full training, at most (must 0.25)")
    report.conditions = {
        "rows": ranking.ROWS,
        "chunks": CHUNKS,
        "policy": "Halving()",
        **ranking.ARGUMENTS,
    }


#: trl's default schedule.
_DECAYING = {**ranking.ARGUMENTS, "lr_scheduler_type": "linear"}


def _space(seed: int) -> RFModelConfig:
    return RFModelConfig(
        model_name="bench",
        peft_config=RFLoraConfig(
            r=List([2, 4, 8, 16, 32]),
            lora_alpha=List([8, 16, 32]),
            target_modules=List(
                [["q_proj", "v_proj"], ["gate_proj", "up_proj", "down_proj"], "all-linear"]
            ),
        ),
        training_args=RFSFTConfig(
            learning_rate=Range(1e-5, 5e-2, log=True),
            per_device_train_batch_size=8,
            seed=seed,
            **_DECAYING,
        ),
    )


def _best(experiment: Experiment) -> float:
    """Of the runs that were trained to their end."""
    done = [run.metrics["eval_loss"] for run in experiment.runs if run.state == "completed"]
    return min(loss for loss in done if loss == loss)


def measure_optuna(report: Report) -> None:
    """RFOptuna with its defaults, and random search with the same number of samples, fully trained."""
    loaded, data = kit.create_model({}), ranking.data()
    wins, ratios = 0, []
    for seed in ranking.SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            search = RFOptuna(_space(seed), "SFT", n_initial=16, budget=40, seed=seed)
            ours = _trained(Path(folder), "optuna", search, data, loaded, num_chunks=8)
            runs = max(1, round(_samples(ours) / ranking.ROWS))
            drawn = RFRandomSearch(_space(seed), "SFT", num_runs=runs, seed=seed)
            theirs = _trained(Path(folder), "random", drawn, data, loaded, num_chunks=8)
            found = (_best(ours), _best(theirs))
            wins += found[0] < found[1]
            ratios.append(found[0] / found[1])
            report.row(
                f"seed {seed}: RFOptuna, {len(ours.runs)} runs, {_samples(ours)} samples",
                found[0],
                "eval_loss",
            )
            report.row(
                f"seed {seed}: random search, {runs} runs, {_samples(theirs)} samples",
                found[1],
                "eval_loss",
            )
    report.row("RFOptuna better", float(wins), f"of {len(ranking.SEEDS)} seeds (must 7 of 10)")
    report.row("its loss against that of random search, mean", sum(ratios) / len(ratios), "x")
    report.conditions = {
        "rows": ranking.ROWS,
        "chunks": 8,
        "n_initial": 16,
        "budget": 40,
        **_DECAYING,
    }


#: Schedules that are compared: how early figures rank runs as they end.
_SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"lr_scheduler_type": "constant"},
    "linear": {"lr_scheduler_type": "linear"},
    "cosine": {"lr_scheduler_type": "cosine"},
}


def measure_schedules(report: Report) -> None:
    """How well do early figures say how runs end, among runs of one schedule and of several?"""
    loaded, data = kit.create_model({}), ranking.data()
    rates = [1e-3, 2e-3, 5e-3, 1e-2, 2e-2]
    agreement: dict[tuple[str, int], list[float]] = {}
    for seed in ranking.SEEDS[:3]:
        ends: dict[str, list[list[float]]] = {}
        for name, schedule in _SCHEDULES.items():
            arguments = {
                **ranking.ARGUMENTS,
                **schedule,
                "learning_rate": List(rates),
                "seed": seed,
            }
            arguments["per_device_train_batch_size"] = 8
            search = RFModelConfig(
                model_name="bench",
                peft_config=RFLoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
                training_args=RFSFTConfig(**arguments),
            )
            with tempfile.TemporaryDirectory() as folder:
                made = _trained(Path(folder), name, search, data, loaded, num_chunks=8)
                frame = made.get_results()
                ends[name] = [
                    [float(x) for x in frame[frame.run_id == run.id].eval_loss.dropna()]
                    for run in made.runs
                ]
        ends["all three together"] = [curve for curves in list(ends.values()) for curve in curves]
        for name, curves in ends.items():
            for chunk in (1, 2, 4):
                agreement.setdefault((name, chunk), []).append(
                    _agreement(
                        [curve[chunk - 1] for curve in curves], [curve[-1] for curve in curves]
                    )
                )
    for (name, chunk), found in agreement.items():
        report.row(
            f"{name}: pairs in their final order after {chunk} of 8 chunks",
            sum(found) / len(found),
            "of all",
        )
    report.conditions = {
        "rows": ranking.ROWS,
        "chunks": 8,
        "rates": rates,
        "seeds": 3,
        "warm-up": "none",
    }


def _agreement(early: Sequence[float], late: Sequence[float]) -> float:
    pairs = [(i, j) for i in range(len(late)) for j in range(i)]
    return sum((early[i] < early[j]) == (late[i] < late[j]) for i, j in pairs) / len(pairs)
