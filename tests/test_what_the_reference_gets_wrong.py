"""Known defects of the field's reference, each right here."""

from __future__ import annotations

import pytest

from rf_notebook.automl import List, RFGridSearch, RFLoraConfig
from tests.api.world import until
from tests.experiment_world import curve, fit, grid, model, two


def rates(experiment, run_id):
    return {
        step: m["learning_rate"] for step, m in curve(experiment, run_id) if "learning_rate" in m
    }


def test_an_edited_learning_rate_of_a_warm_clone_takes_effect_and_its_schedule_covers_its_whole_run(
    new,
):
    experiment = fit(new(), grid(lr_scheduler_type="linear", logging_steps=1), rows=24)
    until(lambda: experiment.run(1).steps >= 5)
    experiment.clone(1, {"learning_rate": 5e-4}, warm_start=True).result(timeout=30)
    experiment.wait()
    found = rates(experiment, 2)
    assert sorted(found) == list(range(1, 13)), "the clone's run is whole"
    assert found[1] == 5e-4
    expected = [5e-4 * (12 - done) / 12 for done in range(12)]
    assert [found[step] for step in sorted(found)] == pytest.approx(expected)


def test_changing_the_rank_of_a_warm_clone_works(new):
    experiment = fit(new(), grid(), rows=60)
    until(lambda: experiment.run(1).steps >= 5)
    larger, smaller = (
        experiment.clone(1, {"peft_config.r": r}, warm_start=True).result(timeout=30)
        for r in (16, 2)
    )
    experiment.wait()
    assert larger.state == smaller.state == "completed"
    assert len(larger.warm_start_report.grown) == 4
    assert all(0 <= lost < 1 for lost in smaller.warm_start_report.shrunk.values())
    assert len(smaller.warm_start_report.shrunk) == 4


def test_cloning_a_completed_run_works(new):
    experiment = fit(new(), grid())
    experiment.wait()
    cold = experiment.clone(1).result(timeout=30)
    warm = experiment.clone(1, warm_start=True).result(timeout=30)
    experiment.wait()
    assert curve(experiment, cold.id) == curve(experiment, 1)
    assert warm.metrics["eval_loss"] < experiment.run(1).metrics["eval_loss"]
    assert len(warm.warm_start_report.copied) == 4


@pytest.mark.parametrize("warmup", [{"warmup_ratio": 0.5}, {"warmup_steps": 6}])
def test_warm_up_holds_across_chunks(new, warmup):
    experiment = fit(
        new(), grid(lr_scheduler_type="constant_with_warmup", logging_steps=1, **warmup)
    )
    experiment.wait()
    found = rates(experiment, 1)
    assert [found[step] for step in range(1, 13)] == pytest.approx(
        [1e-3 * min(done / 6, 1) for done in range(12)]
    )


def test_packing_keeps_its_epoch_count(new):
    experiment = fit(new(), grid(packing=True, num_train_epochs=3), rows=60, num_chunks=2)
    experiment.wait()
    run = experiment.run(1)
    assert run.state == "completed", run.traceback
    last = experiment.session.state.record(1).progress
    assert (last.epoch, last.samples, last.chunks) == (3.0, 180, 6)
    assert last.steps < 3 * 30, "packed rows are fewer than examples"


def test_two_identical_configs_give_identical_curves_whatever_ran_before(new):
    configs = [model(), model(learning_rate=5e-3, lora={"lora_dropout": 0.5}), model()]
    experiment = fit(new(), RFGridSearch(configs, "SFT"))
    experiment.wait()
    experiment.clone(1).result(timeout=30)
    experiment.wait()
    assert curve(experiment, 1) == curve(experiment, 3) == curve(experiment, 4)
    assert curve(experiment, 1) != curve(experiment, 2)


def test_a_stopped_run_survives_the_end_of_the_others_and_of_the_session(new):
    alone = fit(new("alone"), two(), rows=40)
    alone.end()
    experiment = fit(new(), two(), rows=40)
    until(lambda: experiment.run(1).steps >= 3)
    experiment.stop(1).result(timeout=30)
    experiment.end()
    assert [str(run.state) for run in experiment.runs] == ["stopped", "completed"]
    again = fit(new(), two(), rows=40)
    again.wait()
    assert again.run(1).state == "stopped"
    again.resume(1).result(timeout=30)
    again.wait()
    assert curve(again, 1) == curve(alone, 1)


def test_a_bad_clone_is_refused_and_nothing_else_notices(new):
    alone = fit(new("alone"), grid(), rows=60)
    alone.end()
    experiment = fit(new(), grid(), rows=60)
    until(lambda: experiment.run(1).steps >= 3)
    receipt = experiment.clone(
        1, {"lr_scheduler_kwargs": {"no_such": 1}, "optim_args": "not=a=thing"}
    )
    from rf_notebook import ConfigError, RFNotebookError

    with pytest.raises(ConfigError):
        experiment.clone(1, {"peft_config.r": -1})
    try:
        receipt.result(timeout=30)
    except RFNotebookError:
        assert len(experiment.runs) == 1
    experiment.wait()
    assert curve(experiment, 1) == curve(alone, 1)


def test_an_attribute_set_after_construction_is_kept(new):
    config = model()
    config.training_args.learning_rate = List([2e-3, 4e-3])
    config.peft_config = RFLoraConfig(r=2, target_modules=["q_proj"])
    experiment = fit(new(), RFGridSearch(config, "SFT"))
    experiment.wait()
    assert [run.config["training_args"]["learning_rate"] for run in experiment.runs] == [2e-3, 4e-3]
    assert [run.config["peft_config"]["r"] for run in experiment.runs] == [2, 2]
