"""RapidFire AI's names, arguments and columns.

What its notebooks use is there, or refused with what to write instead.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rf_notebook import ConfigError, Experiment, IllegalOperation
from rf_notebook.automl import (
    List,
    Range,
    RFDPOConfig,
    RFGridSearch,
    RFLoraConfig,
    RFModelConfig,
    RFOptuna,
    RFSFTConfig,
)
from rf_notebook.core.objects import Objects
from rf_notebook.evals.utils.notebook_ui import NotebookUI
from rf_notebook.fit.db.rf_db import RfDb
from rf_notebook.fit.utils.interactive_controller import InteractiveController
from rf_notebook.session.registry import forget_all
from rf_notebook.testing.fake_backend import FakeBackend
from tests.api.world import fit, grid

LORA = RFLoraConfig(r=2)


def rates(search):
    return [one.training["learning_rate"] for one in search.run_configs(Objects(), seed=1)]


def test_a_range_with_sample_n_is_drawn_for_a_grid_always_the_same():
    def search(**more):
        args = RFSFTConfig(learning_rate=Range(1e-5, 1e-3, sample_n=3, **more))
        return RFGridSearch(RFModelConfig(model_name="m", peft_config=LORA, training_args=args))

    drawn = rates(search(seed=7))
    assert len(set(drawn)) == 3
    assert all(1e-5 <= rate <= 1e-3 for rate in drawn)
    assert rates(search(seed=7)) == drawn != rates(search(seed=8))
    assert rates(search()) == rates(search())
    assert rates(search(seed=7).copy()) == drawn


def test_a_range_with_a_seed_samples_the_same_numbers():
    one, other = Range(1, 1000, seed=3), Range(1, 1000, seed=3)
    assert [one.sample() for _ in range(5)] == [other.sample() for _ in range(5)]
    assert len({Range(1, 10**9).sample() for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "wrong", [{"sample_n": 0}, {"sample_n": 1.5}, {"sample_n": True}, {"seed": -1}, {"seed": "1"}]
)
def test_a_range_refuses_what_is_no_number_of_draws(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Range(0, 1, **wrong)


def test_a_range_that_has_fewer_numbers_than_are_drawn_says_so():
    with pytest.raises(ConfigError, match="has only 3 different numbers; lower sample_n"):
        Range(1, 3, sample_n=4).tried()


def test_the_trainer_type_follows_from_the_configs():
    model = RFModelConfig(
        model_name="m", peft_config=LORA, training_args=RFDPOConfig(beta=List([0.1, 0.2]))
    )
    assert RFGridSearch(model).trainer_type == "DPO"
    assert RFGridSearch(model, "dpo").trainer_type == "DPO"
    sft = RFModelConfig(
        model_name="m",
        peft_config=LORA,
        training_args=RFSFTConfig(learning_rate=List([1e-3, 1e-4])),
    )
    assert RFOptuna(sft).trainer_type == "SFT"
    with pytest.raises(
        ConfigError, match="has configs of DPO and SFT; give each method a search of its own"
    ):
        RFGridSearch([model, sft])
    with pytest.raises(ConfigError, match="no RFModelConfig has training_args"):
        RFGridSearch(RFModelConfig(model_name="m"))


def test_an_argument_for_retrieval_is_taken_with_a_word():
    sft = RFModelConfig(model_name="m", training_args=RFSFTConfig(learning_rate=List([1e-3, 1e-4])))
    RFOptuna(sft, build_all_indexes=False)
    with pytest.warns(UserWarning, match="build_all_indexes=True\\) has no effect"):
        RFOptuna(sft, build_all_indexes=True)


@pytest.mark.parametrize(
    "given",
    [
        {"fsdp": "full_shard auto_wrap"},
        {"fsdp_config": {"use_orig_params": False}},
        {"fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer"},
    ],
)
def test_sharding_is_refused_with_what_to_write_instead(given):
    with pytest.raises(
        ConfigError, match=r"Remove fsdp and fsdp_config; .* spread by RFModelConfig\(num_gpus=2\)"
    ):
        RFSFTConfig(**given)


@pytest.mark.parametrize("strategy", ["chunk", "shard"])
def test_saving_at_chunks_is_what_happens_anyway(strategy):
    config = RFSFTConfig(save_strategy=strategy)
    assert config.save_strategy == strategy
    assert config.copy() == config
    with pytest.raises(ConfigError, match="the best checkpoint is chosen among evaluations"):
        RFSFTConfig(
            save_strategy=strategy, load_best_model_at_end=True, eval_strategy="steps", eval_steps=2
        )


def test_resources_are_taken_or_refused_in_a_sentence(tmp_path):
    Experiment("one", experiment_path=tmp_path, num_gpus=1)
    with pytest.warns(UserWarning, match=r"num_cpus=2\) has no effect"):
        Experiment("one", experiment_path=tmp_path, num_cpus=2)
    two = Experiment("two", experiment_path=tmp_path, num_gpus=2, runner=FakeBackend())
    with pytest.raises(ConfigError, match=r"run_fit\(devices=2\): this machine has cpu\."):
        two.run_fit(grid())
    with pytest.raises(ConfigError, match="use_cpu=True"):
        Experiment("one", experiment_path=tmp_path, num_gpus=0)
    for wrong in (-1, 1.5, "1", True):
        with pytest.raises(ConfigError, match="must be a whole number"):
            Experiment("one", experiment_path=tmp_path, num_gpus=wrong)
    with pytest.raises(ConfigError, match=r"run_fit\(devices=4\): this machine has cpu\."):
        two.run_fit(grid(), num_gpus=4)
    with pytest.raises(
        ConfigError, match=r"run_fit\(num_gpus=400\): give a number of GPUs between"
    ):
        Experiment("one", experiment_path=tmp_path).run_fit(grid(), num_gpus=400)


def test_the_shims_need_an_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forget_all()
    with pytest.raises(
        IllegalOperation, match="there is no experiment to control yet; call run_fit first"
    ):
        InteractiveController(dispatcher_url="http://127.0.0.1:8851").display()
    with pytest.raises(ConfigError, match="there is no experiment 'absent'; there are: none"):
        RfDb().get_experiments_path("absent")
    experiment = Experiment("present")
    assert RfDb().get_experiments_path("present") == tmp_path / "rf_experiments"
    with pytest.raises(ConfigError, match="there are: present"):
        RfDb().get_experiments_path("absent")
    assert experiment.folder.parent == RfDb().get_experiments_path("present")


def test_a_recorded_experiment_of_the_working_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rf_experiments" / "old").mkdir(parents=True)
    (tmp_path / "rf_experiments" / "old" / "experiment.sqlite").touch()
    assert RfDb().get_experiments_path("old") == tmp_path / "rf_experiments"


def test_both_controls_show_the_panel_of_the_newest_experiment(new, capsys):
    experiment = fit(new(), grid())
    experiment.end()
    for controls in (
        InteractiveController(),
        NotebookUI(dispatcher_url="x", refresh_rate_seconds=1.0, auth_token="t"),
    ):
        controls.display()
        assert experiment.panel().is_shown
    assert experiment.experiment_name in capsys.readouterr().out


def test_the_log_has_rapidfires_names(new):
    experiment = fit(new(), grid())
    experiment.end()
    path = experiment.get_log_file_path()
    assert isinstance(path, Path)
    assert path.exists()
    assert (
        path
        == experiment.get_log_file_path("training")
        == experiment.get_log_file_path("Experiment")
    )
    with pytest.raises(ConfigError, match="there is no such log; did you mean 'training'"):
        experiment.get_log_file_path("trainin")
