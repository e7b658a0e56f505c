"""The text of a %%rapidfire cell."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rf_notebook.automl import List, Range, RFGridSearch, RFOptuna, RFRandomSearch
from rf_notebook.automl.yaml_grid import parse_grid
from rf_notebook.core.errors import ConfigError

GRID = """
model_name: base
formatting_func: my_format
peft_config:
  r: [8, 32]
  target_modules: [[q_proj, v_proj], all-linear]
  modules_to_save: [lm_head]
training_args:
  learning_rate: [1e-4, 2e-3]
  warmup_steps: 5
  bf16: false
train_dataset: data.train
num_chunks: 8
"""


class Data:
    train = ("rows",)


def my_format(row):
    return row


VARIABLES = {"my_format": my_format, "data": Data()}


def test_a_grid():
    grid = parse_grid(GRID, VARIABLES)
    assert isinstance(grid.search, RFGridSearch)
    (model,) = grid.search.templates()
    assert model.formatting_func is my_format
    assert model.peft_config.r == List([8, 32])
    assert model.peft_config.target_modules == List([["q_proj", "v_proj"], "all-linear"])
    assert model.peft_config.modules_to_save == ["lm_head"]
    assert model.training_args.learning_rate == List([1e-4, 2e-3]), (
        "1e-4 is a number, as everybody means it"
    )
    assert model.training_args.bf16 is False
    assert grid.run_arguments == {"train_dataset": ("rows",), "num_chunks": 8}


def test_a_random_search_over_a_range():
    text = "model_name: b\nsearch: {random: 3, seed: 7}\ntraining_args:\n  learning_rate: {range: [1e-5, 1e-3], log: true}\n"
    search = parse_grid(text, {}).search
    assert isinstance(search, RFRandomSearch)
    assert (search.num_runs, search.seed) == (3, 7)
    assert search.templates()[0].training_args.learning_rate == Range(1e-5, 1e-3, log=True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "the cell is not YAML in line"),
        ("- 1", "must hold names and values"),
        ("modelname: b", "the grid has no argument 'modelname'; did you mean 'model_name'"),
        ("trainer_type: SFTT", "did you mean 'SFT'"),
        ("model_name: b\ntraining_args:\n  learn_rate: 1", "did you mean 'learning_rate'"),
        ("formatting_func: my_formt", "there is no variable 'my_formt'; did you mean 'my_format'"),
        ("formatting_func: __import__('os').system('x')", "is not the name of a variable"),
        ("formatting_func: my_format.__globals__", "has no '__globals__'"),
        ("search: bayes", "write 'search: grid'"),
        ("training_args:\n  learning_rate: {range: [1]}", "a range is"),
        ("x: !!python/object/apply:os.system [ls]", "the cell is not YAML"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(text, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_grid(text, VARIABLES)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 500


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_grid_or_one_sentence(text):
    try:
        parse_grid(text, VARIABLES)
    except ConfigError:
        return


def test_a_search_that_learns():
    text = GRID + "search: {optuna: 12, n_initial: 3, objective: 'minimize:loss', seed: 7}\n"
    search = parse_grid(text, VARIABLES).search
    assert isinstance(search, RFOptuna)
    assert (search.budget, search.n_initial, search.objectives, search.seed) == (
        12,
        3,
        [("loss", "minimize")],
        7,
    )
    with pytest.raises(ConfigError, match=r"search: .* does not exist; write .*optuna"):
        parse_grid(GRID + "search: {optuna: 12, runs: 3}\n", VARIABLES)
