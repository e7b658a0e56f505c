"""A config holds what was typed and refuses what cannot be; it computes nothing yet."""

import re
from pathlib import Path

import pytest

from rf_notebook.automl import (
    List,
    Range,
    RFDPOConfig,
    RFGridSearch,
    RFIA3Config,
    RFLoraConfig,
    RFModelConfig,
    RFRandomSearch,
    RFSFTConfig,
)
from rf_notebook.automl.concrete import apply_edits
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.encoding import decode
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.objects import Objects, plain_name
from rf_notebook.core.values import canonical_json


def model(**kwargs):
    given = {
        "model_name": "m",
        "peft_config": RFLoraConfig(r=8),
        "training_args": RFSFTConfig(learning_rate=1e-3),
    }
    return RFModelConfig(**{**given, **kwargs})


def concrete(search, seed=1, **kwargs):
    return search.run_configs(Objects(), seed=seed, **kwargs)


def test_attributes_read_back_what_was_given():
    rates = List([1e-3, 1e-4])
    config = RFSFTConfig(learning_rate=rates, max_seq_length=64, warmup_ratio=0.1)
    assert config.learning_rate is rates
    assert config.max_seq_length == config.max_length == 64
    assert config.warmup_ratio == 0.1
    assert config.per_device_train_batch_size == 8, "the library's default where nothing was given"


def test_an_attribute_set_after_construction_is_kept_and_checked():
    config = model()
    config.training_args.learning_rate = List([1e-3, 3e-3])
    config.peft_config.r = 64
    assert {c.training["learning_rate"] for c in concrete(RFGridSearch(config, "SFT"))} == {
        1e-3,
        3e-3,
    }
    assert {c.peft["r"] for c in concrete(RFGridSearch(config, "SFT"))} == {64}
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        config.training_args.learnin_rate = 1
    with pytest.raises(ConfigError, match="has no argument 'modelname'; did you mean 'model_name'"):
        config.modelname = "x"


def test_a_copy_is_independent():
    def format_row(row):
        return row

    config = model(formatting_func=format_row, model_kwargs={"dtype": "auto", "inner": {"a": [1]}})
    twin = config.copy()
    twin.training_args.learning_rate = 9.0
    twin.peft_config.r = 1
    twin.model_kwargs["inner"]["a"].append(2)
    assert (config.training_args.learning_rate, config.peft_config.r) == (1e-3, 8)
    assert config.model_kwargs["inner"] == {"a": [1]}
    assert twin.formatting_func is format_row
    for original in (
        RFLoraConfig(r=List([1, 2])),
        RFSFTConfig(),
        List([1]),
        Range(1, 2),
        RFGridSearch(config, "SFT"),
    ):
        assert type(original.copy()) is type(original)


def test_a_grid_is_every_combination_nested_lists_included():
    config = model(
        peft_config=List(
            [RFLoraConfig(r=List([4, 8])), RFLoraConfig(r=16, target_modules=["q_proj", "v_proj"])]
        ),
        training_args=RFSFTConfig(
            learning_rate=List([1e-3, 1e-4]),
            lr_scheduler_kwargs={"num_cycles": List([1, 2])},
            lr_scheduler_type="cosine",
        ),
        model_kwargs={"dtype": List(["float32", "bfloat16"])},
    )
    made = concrete(RFGridSearch(config, "SFT"))
    assert len(made) == 3 * 2 * 2 * 2
    assert len({c.digest() for c in made}) == len(made)
    assert made[0].peft == {"r": 4}
    assert [c.digest() for c in concrete(RFGridSearch(config, "SFT"))] == [c.digest() for c in made]


def test_a_python_list_is_a_value_and_configs_may_be_one_several_or_a_list():
    assert concrete(RFGridSearch(model(), "SFT"))[0].training["learning_rate"] == 1e-3
    for given in (model(), [model()], List([model()])):
        assert len(concrete(RFGridSearch(given, "SFT"))) == 1
    assert concrete(
        RFGridSearch(model(peft_config=RFLoraConfig(target_modules=["a", "b"])), "SFT")
    )[0].peft == {"target_modules": ["a", "b"]}


def test_a_range_needs_a_step_in_a_grid():
    stepped = model(training_args=RFSFTConfig(learning_rate=Range(0.1, 0.3, step=0.1)))
    assert [
        c.training["learning_rate"] for c in concrete(RFGridSearch(stepped, "SFT"))
    ] == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(ConfigError, match="has no step, so a grid cannot try each"):
        concrete(
            RFGridSearch(model(training_args=RFSFTConfig(learning_rate=Range(1e-5, 1e-3))), "SFT")
        )


@pytest.mark.parametrize(("method", "config"), TRAINING_CONFIGS.items())
def test_random_search_works_for_every_method(method, config):
    rewards = {"reward_funcs": List([len, [len, max]])} if method in ("GRPO", "RLOO") else {}
    search = RFRandomSearch(
        model(
            training_args=config(learning_rate=Range(1e-5, 1e-3, log=True), seed=List([1, 2, 3])),
            **rewards,
        ),
        method,
        num_runs=6,
        seed=7,
    )
    made = concrete(search)
    assert len({c.digest() for c in made}) == 6
    assert all(1e-5 <= c.training["learning_rate"] <= 1e-3 for c in made)
    assert [c.digest() for c in concrete(search)] == [c.digest() for c in made]
    other = RFRandomSearch(search.configs, method, num_runs=6, seed=8)
    assert [c.digest() for c in concrete(other)] != [c.digest() for c in made]


def test_more_random_runs_than_there_are_configs_is_refused():
    with pytest.raises(ConfigError, match="found only 2 different configs"):
        concrete(
            RFRandomSearch(model(training_args=RFSFTConfig(seed=List([1, 2]))), "SFT", num_runs=3)
        )


def test_the_seed_of_run_fit_is_a_default_and_overrides_nothing():
    config = model(training_args=RFSFTConfig(seed=List([5, 6]), data_seed=9))
    assert [
        c.training["seed"] for c in concrete(RFGridSearch(config, "SFT"), seed=1, data_seed=2)
    ] == [5, 6]
    assert concrete(RFGridSearch(config, "SFT"), seed=1, data_seed=2)[0].training["data_seed"] == 9
    assert concrete(RFGridSearch(model(), "SFT"), seed=1, data_seed=2)[0].training["seed"] == 1
    assert "data_seed" not in concrete(RFGridSearch(model(), "SFT"), seed=1)[0].training


@pytest.mark.parametrize(
    ("given", "today"),
    [
        ({"evaluation_strategy": "steps"}, {"eval_strategy": "steps"}),
        ({"max_seq_length": 128}, {"max_length": 128}),
        ({"warmup_ratio": 0.05}, {"warmup_steps": 0.05}),
        ({"no_cuda": True}, {"use_cpu": True}),
        ({"save_safetensors": True}, {}),
        ({"overwrite_output_dir": True}, {}),
        ({"per_gpu_train_batch_size": 2}, {"per_device_train_batch_size": 2}),
    ],
)
def test_older_spellings_are_translated_where_they_have_an_exact_meaning(given, today):
    assert RFSFTConfig(**given).given() == today


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"group_by_length": True}, "set train_sampling_strategy='group_by_length'"),
        ({"save_safetensors": False}, "checkpoints are always safetensors"),
        ({"use_ipex": True}, "set bf16=True on the CPU"),
        ({"warmup_ratio": 1.5}, "at least 0 and below 1"),
        ({"warmup_ratio": 0.1, "warmup_steps": 10}, "'warmup_steps' twice"),
        ({"evaluation_strategy": "steps", "eval_strategy": "no"}, "twice"),
        ({"formatting_func": len}, "give it to RFModelConfig"),
    ],
)
def test_older_spellings_without_an_exact_meaning_are_refused_with_the_replacement(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        RFSFTConfig(**given)


def test_torch_dtype_is_dtype_and_load_in_4bit_a_quantization_config():
    assert model(model_kwargs={"torch_dtype": "auto"}).model_kwargs == {"dtype": "auto"}
    assert model(model_kwargs={"load_in_4bit": True, "load_in_8bit": False}).model_kwargs == {
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}
    }
    with pytest.raises(ConfigError, match="'quantization_config' twice"):
        model(model_kwargs={"load_in_4bit": True, "load_in_8bit": True})


def test_arguments_that_today_have_no_effect_are_accepted_with_a_warning_at_the_users_line():
    for make in (
        lambda: RFDPOConfig(max_prompt_length=64),
        lambda: setattr(RFDPOConfig(), "max_prompt_length", 64),
    ):
        with pytest.warns(
            UserWarning, match=r"RFDPOConfig\(max_prompt_length=64\) has no effect"
        ) as caught:
            make()
        assert caught[0].filename == __file__
    assert (
        RFDPOConfig(
            model_adapter_name="default", ref_adapter_name="reference", force_use_ref_model=False
        ).given()
        == {}
    )


@pytest.mark.parametrize("method", ["SFT", "DPO", "KTO", "GRPO"])
def test_the_losses_that_can_be_chosen_are_those_in_the_source_of_trl(method):
    import importlib.util

    from rf_notebook.automl.validation import _LOSSES

    folder = Path(importlib.util.find_spec("trl").origin).parent / "trainer"
    source = (folder / f"{method.lower()}_trainer.py").read_text() + (
        folder / f"{method.lower()}_config.py"
    ).read_text()
    found = set(re.findall(r"loss_type == [\"'](\w+)[\"']", source))
    found |= {
        name
        for names in re.findall(r"loss_type in [\[(]([^\])]*)[\])]", source)
        for name in re.findall(r"\w+", names)
    }
    assert found <= set(_LOSSES[f"RF{method}Config"])
    assert all(
        f"'{name}'" in source or f'"{name}"' in source for name in _LOSSES[f"RF{method}Config"]
    )


def test_dpo_takes_one_loss_or_several_and_names_a_wrong_one():
    assert RFDPOConfig(loss_type="ipo").loss_type == "ipo"
    assert RFDPOConfig(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]).loss_type == [
        "sigmoid",
        "sft",
    ]
    with pytest.raises(ConfigError, match="did you mean 'sigmoid'"):
        RFDPOConfig(loss_type=["sft", "sigmod"])


def test_another_trainers_config_as_an_edit_makes_a_run_of_that_method():
    (parent,) = concrete(RFGridSearch(model(), "SFT"))
    for edits in (RFDPOConfig(beta=0.2), {"training_args": RFDPOConfig(beta=0.2)}):
        config, changed = apply_edits(parent, edits, Objects())
        assert config.method == "DPO"
        assert config.training == {"beta": 0.2, "seed": 1}
        assert config.peft == parent.peft
        assert changed["trainer_type"] == "DPO"
    other, _ = apply_edits(parent, RFIA3Config(target_modules=["k_proj"]), Objects())
    assert other.peft == {"peft_type": "IA3", "target_modules": ["k_proj"]}
    again, changed = apply_edits(other, {"target_modules": ["v_proj"]}, Objects())
    assert again.peft == {"peft_type": "IA3", "target_modules": ["v_proj"]}
    assert changed == {"peft_config.target_modules": ["v_proj"]}


def test_edits_by_dotted_key_nested_dict_bare_name_and_config_mean_the_same():
    (parent,) = concrete(RFGridSearch(model(), "SFT"))
    ways = [
        {"training_args.learning_rate": 5e-5},
        {"training_args": {"learning_rate": 5e-5}},
        {"learning_rate": 5e-5},
        RFSFTConfig(learning_rate=5e-5),
        model(training_args=RFSFTConfig(learning_rate=5e-5)),
    ]
    for edits in ways:
        config, changed = apply_edits(parent, edits, Objects())
        assert config.training == {"learning_rate": 5e-5, "seed": 1}
        assert changed == {"training_args.learning_rate": 5e-5}
    config, changed = apply_edits(
        parent, {"peft_params.r": 4, "evaluation_strategy": "epoch"}, Objects()
    )
    assert changed == {"peft_config.r": 4, "training_args.eval_strategy": "epoch"}
    assert apply_edits(parent, None, Objects()) == (parent, {})
    assert apply_edits(parent, {"peft_config": None}, Objects())[0].peft is None


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ({"training_args.learnin_rate": 1}, "did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "has a str"),
        ({"learning_rate": List([1, 2])}, "holds several values"),
        ({"r": Range(1, 4)}, "holds several values"),
        ({"trainng_args.r": 1}, "did you mean 'training_args'"),
        ({"training_args": 5}, "takes"),
        ({3: 4}, "keys are names"),
        ("faster", "edits must be a dict"),
    ],
)
def test_edits_that_cannot_be_are_refused(edits, sentence):
    (parent,) = concrete(RFGridSearch(model(), "SFT"))
    if isinstance(edits, RFDPOConfig):
        edits = model(training_args=edits)
        sentence = "needs training_args of RFSFTConfig"
    with pytest.raises(ConfigError, match=sentence):
        apply_edits(parent, edits, Objects())


def test_secrets_never_reach_the_encoded_config_or_a_repr():
    secrets = ["hf_abcdefghijklmnopqrstuv", "s3cr3t-pass"]
    config = model(
        model_name="https://me:s3cr3t-pass@host/model",
        model_kwargs={"token": secrets[0], "note": f"see {secrets[0]}"},
        training_args=RFSFTConfig(hub_token=secrets[0], eos_token="<end>"),
    )
    objects = Objects()
    (made,) = RFGridSearch(config, "SFT").run_configs(objects, seed=1)
    text = canonical_json(made.as_json()) + repr(config) + repr(config.training_args)
    assert not any(secret in text for secret in secrets)
    assert made.training["eos_token"] == "<end>"
    assert decode(made.model["model_kwargs"], objects)["token"] == secrets[0]
    assert decode(made.model["model_name"], objects) == "https://me:s3cr3t-pass@host/model"


def test_functions_that_hold_other_values_have_other_names_and_the_same_ones_the_same():
    def times(factor, *others):
        def reward(completions, weight=factor):
            return [factor * weight for _ in completions]

        return reward

    names = [plain_name(times(1.0)), plain_name(times(1.0)), plain_name(times(2.0))]
    assert names[0] == names[1] != names[2]
    pair = (lambda texts: 1.0, lambda texts: 2.0)
    assert plain_name(pair[0]) != plain_name(pair[1])

    def recursive(n):
        return recursive(n - 1) if n else 0

    assert plain_name(recursive) == plain_name(recursive)
