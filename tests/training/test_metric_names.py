"""The metrics known beforehand are those that trl logs; each method has its headline."""

from __future__ import annotations

import fnmatch

import pytest

from rf_notebook.automl import (
    List,
    RFDPOConfig,
    RFGridSearch,
    RFGRPOConfig,
    RFKTOConfig,
    RFLoraConfig,
    RFModelConfig,
    RFRewardConfig,
    RFRLOOConfig,
    RFSFTConfig,
)
from rf_notebook.core.metrics import HEADLINES, headline, known_metrics
from rf_notebook.testing.tiny import create_tiny, preference_rows
from rf_notebook.views.runs_table import runs_table_frame, runs_view
from rf_notebook.views.series import ExperimentSeries
from tests.exactness.models import create
from tests.experiment_world import LORA, TRAINING

ARGUMENTS = {name: value for name, value in TRAINING.items() if name != "max_length"} | {
    "num_train_epochs": 2
}


WRITING = {
    "num_generations": 2,
    "max_completion_length": 8,
    "per_device_eval_batch_size": 2,
    "beta": 0.04,
}


def by_length(completions, **kwargs):
    return [float(len(text)) for text in completions]


def labelled(row):
    good = len(row["prompt"]) % 2 > 0
    return {"prompt": row["prompt"], "completion": row["chosen"], "label": good}


def search(method, **training):
    given = ARGUMENTS | training
    arguments, more = {
        "SFT": (lambda: RFSFTConfig(**given), {}),
        "DPO": (lambda: RFDPOConfig(**given), {}),
        "KTO": (lambda: RFKTOConfig(**given), {"formatting_func": labelled}),
        "Reward": (lambda: RFRewardConfig(**given), {}),
        "GRPO": (lambda: RFGRPOConfig(**given, **WRITING), {"reward_funcs": by_length}),
        "RLOO": (lambda: RFRLOOConfig(**given, **WRITING), {"reward_funcs": by_length}),
    }[method]
    return RFGridSearch(
        RFModelConfig(
            model_name="tiny", peft_config=RFLoraConfig(**LORA), training_args=arguments(), **more
        ),
        method,
    )


@pytest.mark.oldest
@pytest.mark.parametrize("evaluates", [True, False])
@pytest.mark.parametrize("method", HEADLINES)
def test_what_is_logged_was_known_and_the_best_is_the_best_by_the_headline(new, method, evaluates):
    experiment = new()
    evaluation = preference_rows(4, 2) if evaluates else None
    given = search(method, learning_rate=List([1e-3, 3e-2]))
    experiment.run_fit(
        given, create, preference_rows(8, 1), evaluation, num_chunks=2, display=False
    )
    experiment.wait()
    assert [run.state for run in experiment.runs] == ["completed"] * 2, experiment.run(1).traceback
    logged = {name for run in experiment.runs for name in run.metrics}
    known = known_metrics(experiment.session.state.record(1).config, evaluates=evaluates)
    assert [
        name for name in sorted(logged) if not any(fnmatch.fnmatchcase(name, one) for one in known)
    ] == []
    best = headline([method], logged)
    assert best == ("eval_" if evaluates else "") + HEADLINES[method]
    figures = {run.id: run.metrics[best] for run in experiment.runs}
    pick = min if best.endswith("loss") else max
    winner = pick(figures, key=figures.get)
    assert experiment.best().id == winner
    series = ExperimentSeries()
    series.update(experiment.session.state)
    assert series.usual_metric == best
    view = runs_view(experiment.session.state, series, best)
    assert view.best_runs == {winner}
    assert best in runs_table_frame(experiment.session.state).columns
    if method in ("GRPO", "RLOO"):  # whatever is looked at, such a run's loss crowns nobody
        assert runs_view(experiment.session.state, series, "loss").best_runs == {winner}
    experiment.end()


def test_a_policys_unknown_metric_is_refused_before_anything_loads(new):
    from rf_notebook import ConfigError
    from rf_notebook.automation import Halving
    from rf_notebook.automl import RFOptuna

    def create(config):
        pytest.fail("a model is loaded")

    rows = preference_rows(8, 1)
    experiment = new()
    for policy, evaluation, sentence in (
        (Halving("evl_loss"), rows, "did you mean 'eval_loss'"),
        (Halving(), None, "has no eval_dataset"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            experiment.run_fit(search("SFT"), create, rows, evaluation, num_chunks=2, policy=policy)
    config = RFModelConfig(
        model_name="tiny",
        peft_config=RFLoraConfig(**LORA),
        training_args=RFSFTConfig(**ARGUMENTS | {"learning_rate": List([1e-3, 1e-2])}),
    )
    with pytest.raises(ConfigError, match="RFOptuna decides by 'evl_loss', which no run will log"):
        experiment.run_fit(
            RFOptuna(config, "SFT", n_initial=1, budget=2, objective="minimize:evl_loss"),
            create,
            rows,
            rows,
        )
    assert experiment.runs == []


def test_automating_by_an_unknown_metric_is_refused_while_it_trains(new):
    from rf_notebook import ConfigError
    from rf_notebook.automation import Halving

    experiment = new()
    experiment.run_fit(
        search("SFT"), create_tiny, preference_rows(8, 1), None, num_chunks=2, display=False
    )
    with pytest.raises(
        ConfigError, match="Halving decides by 'eval_loss' but run_fit has no eval_dataset"
    ):
        experiment.automate(Halving())
    experiment.automate(Halving("loss")).result(timeout=60)
    experiment.wait()
