"""What a person types into a form or after key=."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_notebook.automl import Range
from rf_notebook.automl.typed_text import edits_of, parse_values
from rf_notebook.core.errors import ConfigError
from rf_notebook.testing.fake_session import config


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5e-4", [5e-4]),
        ("5e-4, 2e-3", [5e-4, 2e-3]),
        ("1|2", [1, 2]),
        ("8..11", [8, 9, 10, 11]),
        ("8..32 step 8", [8, 16, 24, 32]),
        ("1e-5..1e-3 log 3", [1e-5, 1e-4, 1e-3]),
        ("0..1 x 3", [0.0, 0.5, 1.0]),
        ("true, False, none", [True, False, None]),
        ("cosine, linear", ["cosine", "linear"]),
        ("'a, b'", ["a, b"]),
        ('{"a": 1, "b": 2}', [{"a": 1, "b": 2}]),
    ],
)
def test_values(text, values):
    found = parse_values(text)
    assert (
        found == pytest.approx(values)
        if all(isinstance(v, float) for v in values)
        else found == values
    )


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("q_proj, v_proj", [["q_proj", "v_proj"]]),
        ("[q_proj, v_proj] | all-linear", [["q_proj", "v_proj"], "all-linear"]),
        ("q_proj", [["q_proj"]]),
        (".*attn.*", [".*attn.*"]),
        ("none", [None]),
    ],
)
def test_values_of_an_argument_that_takes_a_list(text, values):
    assert parse_values(text, takes_list=True) == values


@pytest.mark.parametrize(
    "text", ["", "  ", "0.1..0.5", "1..1000", "1..2 step x", "0..1 log 3", "1..2 x 1"]
)
def test_texts_that_mean_nothing_are_refused(text):
    with pytest.raises(ConfigError):
        parse_values(text)


def test_every_combination_becomes_an_edit():
    edits = edits_of(
        {
            "training_args.learning_rate": "1e-3, 1e-4",
            "peft_config.target_modules": "q_proj, v_proj",
        },
        config(),
    )
    assert edits == [
        {"training_args.learning_rate": 1e-3, "peft_config.target_modules": ["q_proj", "v_proj"]},
        {"training_args.learning_rate": 1e-4, "peft_config.target_modules": ["q_proj", "v_proj"]},
    ]
    with pytest.raises(ConfigError, match="make 100 combinations; at most 64"):
        edits_of({"a": "1..10", "b": "1..10"}, config())
    with pytest.raises(ConfigError, match=r"^r: give a value"):
        edits_of({"r": " "}, config())


@given(st.text(max_size=60), st.booleans())
def test_any_text_gives_values_or_one_sentence(text, takes_list):
    try:
        values = parse_values(text, takes_list=takes_list)
    except ConfigError:
        return
    assert 1 <= len(values) <= 64


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "text",
    [
        "1..100000000",
        "0..1 step 1e-300",
        "-1e308..1e308 x 3",
        "1e-320..1e300 log 64",
        f"1..1{'0' * 400}",
        f"1..1{'0' * 400} step 2",
        f"1{'0' * 5000}",
        "1..2 " * 10_000,
    ],
)
def test_no_text_takes_the_memory_or_the_time(text):
    with contextlib.suppress(ConfigError):
        assert len(parse_values(text)) <= 64


@pytest.mark.timeout(5)
def test_a_range_of_very_many_steps_is_refused():
    with pytest.raises(ConfigError, match="more than 100,000 steps"):
        Range(0, 10**9, step=1).steps()
