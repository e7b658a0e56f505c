"""Rows reach trl as given; what cannot be trained on is told with row, function and model."""

from __future__ import annotations

import datasets
import pandas as pd
import pytest

from rf_notebook.automl import (
    RFGridSearch,
    RFLoraConfig,
    RFModelConfig,
)
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.errors import ConfigError
from rf_notebook.testing.tiny import create_tiny, prompt_rows, tiny_model, tiny_tokenizer
from rf_notebook.training.datasets import as_dataset

ON_CPU = {"max_steps": 2, "per_device_train_batch_size": 2, "bf16": False, "use_cpu": True}
CALLS = [
    {
        "messages": [
            {"role": "user", "content": "the cat"},
            {"role": "assistant", "content": "a dog"},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "lights"},
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "on", "arguments": {"room": 1}}}],
            },
            {"role": "tool", "name": "on", "content": "done"},
        ],
        "tools": [{"name": "on", "parameters": {"room": {"type": "integer"}}}, {"name": "off"}],
    },
]


def search(method="SFT", **fields):
    arguments = TRAINING_CONFIGS[method]
    training = ON_CPU | fields.pop("training", {})
    lora = fields.pop("lora", {"r": 2, "target_modules": ["q_proj"]})
    config = RFModelConfig(
        **{
            "model_name": "tiny",
            "peft_config": RFLoraConfig(**lora),
            "training_args": arguments(**training),
        }
        | fields
    )
    return RFGridSearch(config, method)


def launch(new, rows, found=None, evaluation=None, **options):
    experiment = new()
    options = {"num_chunks": 1, "display": False} | options
    experiment.run_fit(
        found or search(), options.pop("create_model", create_tiny), rows, evaluation, **options
    )
    experiment.end()
    return experiment.run(1)


@pytest.mark.parametrize("as_given", [list, tuple, pd.DataFrame], ids=["list", "tuple", "frame"])
def test_dicts_inside_rows_keep_their_keys_and_no_column_is_lost(as_given):
    made = as_dataset(as_given(CALLS), "train_dataset")
    documented = datasets.Dataset.from_list(
        [{"tools": None, **row} for row in CALLS], on_mixed_types="use_json"
    )
    assert set(made.column_names) == {"messages", "tools"}
    assert [row["messages"] for row in made] == [row["messages"] for row in documented]
    assert [row["messages"] for row in made] == [row["messages"] for row in CALLS]
    assert [row["tools"] for row in made] == [None, CALLS[1]["tools"]]


def test_rows_of_one_shape_are_as_plain_datasets_make_them():
    rows = [{"prompt": [{"role": "user", "content": "a"}], "n": n} for n in range(3)]
    assert list(as_dataset(rows, "train_dataset")) == list(datasets.Dataset.from_list(rows)) == rows


def test_conversations_from_elsewhere_train_as_trl_trains_them(new):
    rows = [
        {
            "conversations": [
                {"from": "user", "value": "the cat"},
                {"from": "assistant", "value": "a dog"},
            ]
        }
    ] * 4
    same = [
        {
            "messages": [
                {"role": "user", "content": "the cat"},
                {"role": "assistant", "content": "a dog"},
            ]
        }
    ] * 4
    run, plain = launch(new, rows), launch(lambda: new("plain"), same)
    assert run.error is None
    assert run.metrics["train_loss"] == plain.metrics["train_loss"]


def test_several_evaluation_sets_are_refused_with_what_to_do(new):
    with pytest.raises(ConfigError, match=r"eval_dataset is a dict of 2 data sets \(a, b\)"):
        launch(new, prompt_rows(4, 1), evaluation={"a": prompt_rows(2, 1), "b": prompt_rows(2, 2)})


@pytest.mark.parametrize(
    ("method", "column"),
    [
        *[("SFT", "completion"), ("SFT", "prompt"), ("DPO", "rejected"), ("KTO", "chosen")],
        *[("GRPO", "prompt"), ("RLOO", "prompt")],
    ],
)
@pytest.mark.parametrize("is_eval", [False, True])
def test_an_empty_cell_is_told_by_its_row(new, method, column, is_eval):
    rows = [{"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"} for _ in range(8)]
    bad = [dict(row) for row in rows]
    bad[5][column] = bad[7][column] = None
    more = {}
    if method in ("GRPO", "RLOO"):
        more = {
            "reward_funcs": lambda completions, **columns: [0.0] * len(completions),
            "training": {"num_generations": 2},
        }
    argument = "eval_dataset" if is_eval else "train_dataset"
    with pytest.raises(ConfigError, match=rf"{argument}\[5\] has {column}=None, and 1 more rows"):
        launch(new, rows if is_eval else bad, search(method, **more), bad if is_eval else None)


@pytest.mark.parametrize("place", [3, 150])
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda row: 1 / 0, "raised ZeroDivisionError"),
        (lambda row: None, "returned None"),
        (lambda row: {}, "returned a dict"),
        (lambda row: "", "returned ''"),
    ],
)
def test_a_row_that_the_formatting_function_fails_on_is_named(new, place, made, words):
    rows = [{"n": n} for n in range(200)]

    def shape(row):
        return made(row) if row["n"] == place else {"prompt": "the", "completion": " cat"}

    found = search(formatting_func=shape)
    if place < 100:
        with pytest.raises(ConfigError, match=rf"'shape' {words}.* train_dataset\[{place}\]"):
            launch(new, rows, found)
    else:
        run = launch(new, rows, found)
        assert "formatting_func 'shape' " + words in str(run.error)
        assert f"train_dataset[{place}]" in str(run.error)


def test_a_row_with_other_columns_is_named(new):
    def shape(row):
        return {"prompt": "the", "completion": " cat"} if row["n"] != 150 else {"prompt": "the"}

    run = launch(new, [{"n": n} for n in range(200)], search(formatting_func=shape))
    assert "'shape' gives train_dataset[150] no 'completion'" in str(run.error)


def test_completions_that_are_all_cut_off_are_told_so(new):
    rows = [{"prompt": "the cat runs " * 10, "completion": " away"}] * 4
    run = launch(new, rows, search(training={"max_length": 8, "completion_only_loss": True}))
    assert "max_length=8 cuts off every completion" in str(run.error)


def test_a_model_that_is_nowhere_is_told_by_its_name(new):
    run = launch(
        new, prompt_rows(4, 1), search(model_name="nobody/no-such-model"), create_model=None
    )
    assert "the base model 'nobody/no-such-model' cannot be loaded" in str(run.error)


def test_a_model_that_is_nowhere_is_asked_for_once_when_the_hub_cannot_be_reached(new, monkeypatch):
    from rf_notebook.training import base_models

    asked = []

    class Unreachable:
        def model_info(self, name, **more):
            asked.append(name)
            raise ConnectionError("no route")

    monkeypatch.setattr(base_models, "is_offline_mode", lambda: False)
    monkeypatch.setattr(base_models, "HfApi", Unreachable)
    run = launch(
        new, prompt_rows(4, 1), search(model_name="nobody/no-such-model"), create_model=None
    )
    assert asked == ["nobody/no-such-model"]
    assert "ConnectionError: no route" in str(run.error)


@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        (
            {"target_modules": ["q_prj", "v_proj"]},
            "target_modules names 'q_prj', .*did you mean 'q_proj'",
        ),
        ({"target_modules": {"q_proj", "w_proj"}}, "target_modules names 'w_proj'"),
        (
            {"target_modules": ["q_proj"], "modules_to_save": ["lm_hed"]},
            "modules_to_save names 'lm_hed', .*'lm_head'",
        ),
        (
            {"target_modules": "all-linear", "exclude_modules": ["zz"]},
            "exclude_modules names 'zz', .*there are",
        ),
        (
            {"target_modules": ["q_proj"], "rank_pattern": {"o_prj": 4}},
            "rank_pattern names 'o_prj', .*'o_proj'",
        ),
    ],
)
def test_modules_that_the_model_does_not_have_are_refused(new, tmp_path, lora, sentence):
    lora = {"r": 2, **lora}
    run = launch(
        new, prompt_rows(4, 1), search(lora=lora)
    )  # nothing is known of it before it is loaded
    assert run.state == "failed"
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(str(run.error))
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=sentence):
        new("other").run_fit(
            search(lora=lora, model_name=str(tmp_path / "model")),
            None,
            prompt_rows(4, 1),
            num_chunks=1,
            display=False,
        )


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": ["model.layers.0.self_attn.q_proj", "self_attn.v_proj"]},
        {
            "target_modules": ["q_proj", "o_proj"],
            "rank_pattern": {r"layers\.0\..*q_proj": 4},
            "exclude_modules": ["o_proj"],
        },
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    ],
)
def test_modules_that_it_has_are_not(new, lora):
    assert launch(new, prompt_rows(4, 1), search(lora={"r": 2, **lora})).error is None
