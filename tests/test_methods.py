"""DPO and GRPO through the public API.

References, rewards, mixed experiments, generation, a kill between two chunks.
"""

from __future__ import annotations

import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from trl import DPOConfig, DPOTrainer

from rf_notebook import ConfigError, IllegalOperation
from rf_notebook.automl import (
    List,
    RFDPOConfig,
    RFGridSearch,
    RFGRPOConfig,
    RFIA3Config,
    RFModelConfig,
    RFSFTConfig,
)
from rf_notebook.testing.tiny import (
    create_tiny,
    preference_rows,
    prompt_rows,
    tiny_model,
)
from tests.api.world import until
from tests.experiment_world import TRAINING, curve, model
from tests.methods_world import DPO, GRPO, dpo, fit, grpo, length, plain_losses


def test_methods_side_by_side_over_one_base_train_as_they_do_alone(new):
    configs = [
        RFGridSearch(model(), "SFT"),
        RFGridSearch(dpo(beta=List([0.1, 0.5])), "DPO"),
        grpo(),
        grpo(beta=0.1),
    ]
    experiment = fit(new(), configs, evaluates=True)
    experiment.wait()
    assert [run.state for run in experiment.runs] == ["completed"] * 5
    assert len(experiment.session.engine.fleet.runner.models.loaded) == 1, "one resident base model"
    assert [run.config["trainer_type"] for run in experiment.runs] == [
        "SFT",
        "DPO",
        "DPO",
        "GRPO",
        "GRPO",
    ]
    experiment.end()
    for run_id, config in ((1, model()), (3, dpo(beta=0.5)), (5, grpo(beta=0.1))):
        alone = fit(new(f"alone {run_id}"), config, evaluates=True)
        alone.end()
        assert curve(alone, 1) == curve(experiment, run_id)


def test_rows_without_the_columns_of_the_method_are_refused_before_any_model_is_loaded(new):
    for configs, needs in (
        (
            dpo(),
            "DPO needs rows with prompt, chosen and rejected; train_dataset has prompt, completion",
        ),
        (
            grpo(fields={"formatting_func": lambda row: {"question": row["prompt"]}}),
            "formatting_func returns question",
        ),
        (
            dpo(fields={"formatting_func": lambda row: row["prompt"]}),
            "formatting_func returns text, which DPO cannot",
        ),
    ):
        with pytest.raises(ConfigError, match=needs):
            new().run_fit(configs, lambda _: pytest.fail("a model was loaded"), prompt_rows(24, 1))


def test_fields_of_another_method_are_refused(new):
    for configs, sentence in (
        (model().copy(), "reward_funcs belongs to trainer_type='GRPO' or 'RLOO'"),
        (
            grpo(fields={"ref_model_name": "tiny"}),
            "ref_model_name belongs to trainer_type='DPO' or 'KTO'",
        ),
        (
            RFModelConfig(model_name="tiny", training_args=RFGRPOConfig(**GRPO)),
            "GRPO needs reward_funcs",
        ),
        (grpo([length, length], reward_weights=[1.0]), "reward_weights has 1 numbers for 2"),
        (
            grpo(per_device_train_batch_size=8, gradient_accumulation_steps=64),
            "needs 128 prompts, and the data has 24",
        ),
        (grpo(lambda completions: [1.0]), "give it \\*\\*kwargs"),
        (
            dpo(sync_ref_model=True, precompute_ref_log_probs=True),
            "sync_ref_model=True moves the reference",
        ),
    ):
        if "reward_funcs belongs" in sentence:
            configs.reward_funcs = length
        with pytest.raises(ConfigError, match=sentence):
            fit(new(), configs)
    with pytest.raises(
        ConfigError, match="per_device_eval_batch_size=6 is not a multiple of the 4"
    ):
        fit(new(), grpo(per_device_eval_batch_size=6), evaluates=True)


def test_formatting_func_makes_the_columns_of_each_method(new):
    def pairs(row):
        return {"prompt": row["a"], "chosen": row["b"], "rejected": row["c"]}

    rows = (
        preference_rows(24, 1)
        .rename_columns({"prompt": "a", "chosen": "b", "rejected": "c"})
        .remove_columns("completion")
    )
    experiment = new()
    experiment.run_fit(
        [
            dpo(fields={"formatting_func": pairs}),
            grpo(fields={"formatting_func": lambda row: {"prompt": row["a"]}}),
        ],
        create_tiny,
        rows,
        num_chunks=2,
    )
    experiment.wait()
    assert [run.state for run in experiment.runs] == ["completed", "completed"]


def test_losses_of_different_methods_are_not_ranked_against_each_other(new):
    experiment = fit(
        new(), [RFGridSearch(model(), "SFT"), dpo(), dpo(loss_type="ipo"), dpo(beta=0.5), grpo()]
    )
    experiment.wait()
    with pytest.raises(
        ConfigError,
        match="'loss' of SFT and DPO and DPO ipo and GRPO runs cannot be compared; say which",
    ):
        experiment.best("loss")
    assert experiment.best("loss", among=[2, 4]).id in (2, 4)
    assert experiment.best("reward").id == 5
    from rf_notebook.views.curves import Emphasis
    from rf_notebook.views.runs_table import runs_view
    from rf_notebook.views.series import ExperimentSeries
    from rf_notebook.widgets.curves_page import CurvesPage

    state, series = experiment.session.state, ExperimentSeries()
    series.update(state)
    view = runs_view(state, series, "loss")
    assert view.scales == ("DPO", "DPO ipo", "GRPO", "SFT")
    assert {1, 3, 5} < view.best_runs, "the best of each kind is marked"
    assert "trainer_type" in {column.key for column in view.columns}
    page = CurvesPage(lambda: None, lambda _run: None)
    page.show(state, series, view, Emphasis())
    assert page.scale.widget.layout.display is None
    assert list(page.scale.widget.options) == ["all methods", "DPO", "DPO ipo", "GRPO", "SFT"]
    one = runs_view(state, series, "reward")
    page.show(state, series, one, Emphasis())
    assert page.scale.widget.layout.display == "none"


# ---- references


def sft_then_dpo(experiment, **edits):
    fit(experiment, RFGridSearch(model(num_train_epochs=2), "SFT"))
    experiment.wait()
    child = experiment.clone(
        1, RFDPOConfig(**{**DPO, "logging_steps": 1, **edits}), warm_start=True
    ).result(timeout=30)
    experiment.wait()
    assert child.state == "completed", child.traceback
    return child


@pytest.mark.parametrize("precompute", [False, True])
def test_a_dpo_run_that_starts_from_an_sft_run_equals_plain_trl_on_the_peft_model(
    new, tmp_path, precompute
):
    experiment = new()
    child = sft_then_dpo(experiment, precompute_ref_log_probs=precompute)
    path = experiment.export(1, tmp_path / "adapter")
    experiment.end()
    training = {**DPO, "logging_steps": 1, "precompute_ref_log_probs": precompute}
    plain = plain_losses(DPOTrainer, DPOConfig, training, path, tmp_path / "plain")
    ours = [metrics["loss"] for _, metrics in curve(experiment, child.id) if "loss" in metrics]
    assert ours == plain
    assert ours[0] == pytest.approx(math.log(2)), "the reference is the model that it starts from"


def test_an_adapter_path_and_a_clone_of_the_sft_run_give_the_same_dpo_run(new, tmp_path):
    first = new("first")
    child = sft_then_dpo(first)
    path = first.export(1, tmp_path / "adapter")
    first.end()
    second = fit(new("second"), dpo(fields={"warm_start_from": path}, logging_steps=1))
    second.wait()
    assert curve(second, 1) == curve(first, child.id)
    assert len(second.run(1).warm_start_report.copied) == 4
    for file in path.iterdir():
        file.unlink()  # the experiment has its own copy
    second.end()
    again = fit(new("second"), dpo(fields={"warm_start_from": path}, logging_steps=1))
    assert curve(again, 1) == curve(first, child.id)


def test_a_clone_of_a_dpo_run_keeps_its_parents_reference(new):
    experiment = new()
    child = sft_then_dpo(experiment)
    grandchild = experiment.clone(child.id, {"r": 8, "lora_alpha": 16}, warm_start=True).result(
        timeout=30
    )
    cold = experiment.clone(child.id, {"learning_rate": 0.0}, warm_start=True).result(timeout=30)
    experiment.wait()
    assert grandchild.state == cold.state == "completed", grandchild.traceback
    first = curve(experiment, grandchild.id)[0][1]
    assert first["loss"] == pytest.approx(curve(experiment, cold.id)[0][1]["loss"], rel=1e-5), (
        "larger rank, same function"
    )
    assert first["rewards/margins"] != 0.0, "compared with the SFT model, not with its own start"


def test_a_folder_that_is_no_adapter_is_refused_at_once(new, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"is not an adapter: it has no adapter_config.json and no adapter_model.safetensors",
    ):
        fit(new(), dpo(fields={"warm_start_from": str(tmp_path)}))
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_a_reference_of_another_name_is_loaded_once_and_shared(new):
    loaded = []

    def create(config):
        loaded.append(config["model_name"])
        return create_tiny({"model_kwargs": {"seed": 5} if config["model_name"] == "other" else {}})

    experiment = new()
    experiment.run_fit(
        dpo(beta=List([0.1, 0.2]), fields={"ref_model_name": "other"}),
        create,
        preference_rows(24, 1),
        num_chunks=2,
    )
    experiment.wait()
    assert loaded == ["tiny", "other"]
    assert curve(experiment, 1)[0][1]["loss"] != pytest.approx(math.log(2), abs=1e-4)


def test_reference_probabilities_are_computed_once_for_runs_of_equal_settings(new, monkeypatch):
    from rf_notebook.training.methods.dpo import RunDPOTrainer

    asked = []
    compute = RunDPOTrainer.compute_ref_log_probs
    monkeypatch.setattr(
        RunDPOTrainer,
        "compute_ref_log_probs",
        lambda self, *given: (asked.append(self), compute(self, *given))[1],
    )
    configs = [
        dpo(precompute_ref_log_probs=True, learning_rate=List([1e-3, 2e-3]), beta=List([0.1, 0.5])),
        dpo(precompute_ref_log_probs=True, precompute_ref_batch_size=8),
    ]
    experiment = fit(new(), configs)
    experiment.wait()
    assert [run.state for run in experiment.runs] == ["completed"] * 5
    assert len(asked) == 12 + 3, "24 rows by 2 for the first of four, and by 8 for the fifth"
    assert len(set(map(id, asked))) == 2


# ---- rewards


@pytest.mark.parametrize(
    "configs",
    [
        [dpo(num_train_epochs=2), dpo(precompute_ref_log_probs=True, num_train_epochs=2)],
        [grpo(num_iterations=2, beta=0.05), grpo(steps_per_generation=2, num_train_epochs=2)],
    ],
    ids=["dpo", "grpo"],
)
def test_what_a_new_kernel_goes_on_with_is_bit_identical(new, configs):
    alone = fit(new("alone"), configs, rows=16)
    alone.end()
    experiment = fit(new(), configs, rows=16)
    until(lambda: experiment.run(1).steps >= 3)
    experiment.cancel_current()
    again = fit(new(), configs, rows=16)
    again.end()
    for run_id in (1, 2):
        assert curve(again, run_id) == curve(alone, run_id)


# ---- other adapters, generation


def test_another_kind_of_adapter_trains_exports_and_is_loaded(new, tmp_path):
    config = model()
    config.peft_config = RFIA3Config(
        target_modules=List([["k_proj", "down_proj"], ["v_proj", "down_proj"]]),
        feedforward_modules=["down_proj"],
    )
    config.training_args = RFSFTConfig(**{**TRAINING, "learning_rate": 1e-2})
    experiment = fit(new(), RFGridSearch(config, "SFT"))
    experiment.wait()
    assert [run.state for run in experiment.runs] == ["completed"] * 2
    experiment.export(1, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(tiny_model(), str(tmp_path / "adapter"))
    ids = torch.arange(5, 15)[None]
    assert torch.equal(loaded(ids).logits, experiment.load(1)(ids).logits)


def test_generation_between_chunks_shows_runs_side_by_side_and_disturbs_nothing(new):
    configs = [RFGridSearch(model(learning_rate=List([1e-3, 1e-2]), num_train_epochs=3), "SFT")]
    alone = fit(new("alone"), configs)
    alone.end()
    experiment = fit(new(), configs)
    until(lambda: experiment.run(2).steps >= 2)
    frames = [
        experiment.generate(
            [1, experiment.run(2)],
            ["the cat", "a dog runs"],
            max_new_tokens=5,
            temperature=1.5,
            seed=seed,
        )
        for seed in (1, 1, 2)
    ]
    assert list(frames[0].columns) == ["run 1", "run 2"]
    assert list(frames[0].index) == ["the cat", "a dog runs"]
    experiment.wait()
    over = experiment.generate(1, "the cat", max_new_tokens=5, temperature=1.5, seed=1)
    assert over.equals(experiment.generate(1, "the cat", max_new_tokens=5, temperature=1.5, seed=1))
    assert not over.equals(
        experiment.generate(1, "the cat", max_new_tokens=5, temperature=1.5, seed=2)
    )
    experiment.end()
    assert experiment.generate(1, "the cat", max_new_tokens=5, temperature=1.5, seed=1).equals(
        over
    ), "from the checkpoint"
    for run_id in (1, 2):
        assert curve(experiment, run_id) == curve(alone, run_id)


def test_generation_of_a_run_without_a_model_or_a_prompt_is_refused(new):
    experiment = fit(new(), model())
    experiment.wait()
    experiment.end()
    with pytest.raises(ConfigError, match="at least one"):
        experiment.generate(1, [])
    with pytest.raises(IllegalOperation, match="did not run out of memory"):
        experiment.retry(1)


def test_full_fine_tuning_of_two_models_at_once(new):
    config = model()
    config.peft_config = None
    config.model_kwargs = List([{"hidden": 64}, {"hidden": 32}])
    experiment = fit(new(), RFGridSearch(config, "SFT"), rows=16)
    experiment.wait()
    assert [run.state for run in experiment.runs] == ["completed"] * 2
    assert len(experiment.session.engine.fleet.runner.models.loaded) == 2
    tree = experiment.load(1)
    assert not hasattr(tree, "peft_config")
    fresh = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"]))
    assert sum(p.numel() for p in tree.parameters()) < sum(p.numel() for p in fresh.parameters())
