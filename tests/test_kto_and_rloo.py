"""KTO and RLOO through the public API: refusals, clones across methods, the reference."""

from __future__ import annotations

import pytest
from trl import KTOConfig, KTOTrainer, RLOOConfig, RLOOTrainer

from rf_notebook import ConfigError
from rf_notebook.automl import RFGridSearch, RFKTOConfig, RFLoraConfig, RFModelConfig, RFRLOOConfig
from rf_notebook.testing.tiny import (
    create_tiny,
    prompt_rows,
)
from rf_notebook.training.failures import failure_of
from tests.experiment_world import LORA, curve, model
from tests.methods_world import DPO, GRPO, fit, length, plain_losses

KTO = {**DPO, "per_device_train_batch_size": 4, "logging_steps": 1}
RLOO = {**GRPO, "logging_steps": 1}


def kto(*, fields=None, **training):
    return RFModelConfig(
        model_name="tiny",
        peft_config=RFLoraConfig(**LORA),
        training_args=RFKTOConfig(**{**KTO, **training}),
        **(fields or {}),
    )


def rloo(**fields):
    return RFModelConfig(
        model_name="tiny",
        peft_config=RFLoraConfig(**LORA),
        training_args=RFRLOOConfig(**RLOO),
        **fields,
    )


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (kto(per_device_train_batch_size=1), "per_device_train_batch_size=1; set it to 2 or more"),
        (kto(train_sampling_strategy="random"), "trains in the data's order, and train_sampling"),
        (kto(fields={"reward_funcs": length}), "belongs to trainer_type='GRPO' or 'RLOO'"),
        (rloo(), "RLOO needs reward_funcs"),
        (
            rloo(reward_funcs=length, ref_model_name="tiny"),
            "belongs to trainer_type='DPO' or 'KTO', and this config is RLOO",
        ),
        (
            kto(fields={"formatting_func": lambda row: {"prompt": row["prompt"]}}),
            "KTO needs rows with prompt, completion and label, or prompt, chosen and rejected; "
            "formatting_func returns prompt",
        ),
    ],
)
def test_what_cannot_be_is_refused(new, config, sentence):
    with pytest.raises(ConfigError, match=sentence):
        fit(new(), config)


def test_the_loss_without_neighbours_takes_a_batch_of_one_in_any_order(new):
    alone = {"per_device_train_batch_size": 1, "train_sampling_strategy": "random"}
    experiment = fit(new(), kto(loss_type="apo_zero_unpaired", **alone))
    experiment.wait()
    assert experiment.run(1).state == "completed", experiment.run(1).traceback


@pytest.mark.filterwarnings("ignore:config 1. KTO trains in the data's order")
@pytest.mark.parametrize(("loss", "halves"), [("kto", False), ("apo_zero_unpaired", True)])
def test_no_retry_with_a_batch_that_would_be_refused(new, loss, halves):
    experiment = fit(new(), kto(loss_type=loss, per_device_train_batch_size=2))
    config = experiment.session.state.record(1).config
    experiment.end()
    assert bool(failure_of(MemoryError("no room"), config).retry) == halves


METHODS = {
    "KTO": (RFKTOConfig(**KTO), {}, KTOConfig, KTOTrainer, KTO),
    "RLOO": (RFRLOOConfig(**RLOO), {"reward_funcs": length}, RLOOConfig, RLOOTrainer, RLOO),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_clone_of_an_sft_run_compares_with_what_it_starts_from_like_plain_trl(
    new, tmp_path, method
):
    arguments, more, config_class, trainer_class, training = METHODS[method]
    experiment = fit(new(), RFGridSearch(model(num_train_epochs=2), "SFT"))
    experiment.wait()
    edits = {"training_args": arguments, **more}
    child = experiment.clone(1, edits, warm_start=True).result(timeout=30)
    experiment.wait()
    assert child.state == "completed", child.traceback
    path = experiment.export(1, tmp_path / "adapter")
    experiment.end()
    plain = plain_losses(trainer_class, config_class, training, path, tmp_path / "plain", **more)
    assert plain
    assert [m["loss"] for _, m in curve(experiment, child.id) if "loss" in m] == plain


def test_the_order_of_pairs_is_told(new):
    with pytest.warns(
        UserWarning, match="trl puts the chosen answers of pairs before all rejected"
    ):
        fit(new(), kto()).end()


def test_labelled_rows_need_no_pairs(new):
    rows = prompt_rows(24, 1)
    rows = rows.add_column("label", [number % 3 > 0 for number in range(len(rows))])
    experiment = new()
    experiment.run_fit(kto(), create_tiny, rows, num_chunks=2, display=False)
    experiment.wait()
    assert experiment.run(1).state == "completed", experiment.run(1).traceback
    assert {"kl", "rewards/margins", "logps/chosen"} <= experiment.run(1).metrics.keys()
    experiment.end()
