"""What a row asks and expects, in every shape of data that people have."""

from __future__ import annotations

import pytest

from rf_notebook.core.errors import ConfigError
from rf_notebook.training.exchanges import Exchange, exchange_of

USER, ANSWER = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}
QA = {"instruction": "Where?", "response": "Here."}
TEXT = "Question: Where?\nAnswer: Here."


@pytest.mark.parametrize(
    ("row", "raw", "asked", "expected"),
    [
        ({"prompt": "Where?", "completion": "Here."}, {}, "Where?", "Here."),
        ({"prompt": [USER], "completion": [ANSWER]}, {}, [USER], "Here."),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [USER]}, {}, [USER], "Here."),
        ({"chosen": [USER, ANSWER], "rejected": [USER, USER]}, {}, [USER], "Here."),
        ({"prompt": [USER], "answer": "Here.", "question": "x"}, {}, [USER], "Here."),
        ({"prompt": [USER]}, {"answer": "Here."}, [USER], "Here."),
        ({"messages": [USER, ANSWER]}, QA | {"response": "elsewhere"}, [USER], "Here."),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Where?"},
                    {"from": "gpt", "value": "Here."},
                ]
            },
            {},
            [{"role": "human", "content": "Where?"}],
            "Here.",
        ),
        ({"text": TEXT}, QA, "Question: Where?\nAnswer:", "Here."),
        ({"text": TEXT, **QA}, QA, "Question: Where?\nAnswer:", "Here."),
        (
            {"text": "<u>Where?</u><a>Here.</a>"},
            {"input": "", "output": " Here. "},
            "<u>Where?</u><a>",
            " Here. ",
        ),
        ({"text": "Here. Q: Where? A:\nHere."}, QA, "Here. Q: Where? A:\n", "Here."),
        ({"text": "rewritten"}, QA, "Where?", "Here."),
        ({"text": "rewritten"}, {"response": "Here."}, "rewritten", "Here."),
        ({"input": "Where?", "output": "Here."}, {}, "Where?", "Here."),
        ({"question": "Where?", "answer": "Here."}, {}, "Where?", "Here."),
        ({"input_ids": [1, 2]}, QA, "Where?", "Here."),
    ],
)
def test_a_row_is_asked_as_it_is_trained(row, raw, asked, expected):
    found = exchange_of(row, raw)
    assert (found.asked, found.expected, found.is_guess) == (asked, expected, False)
    assert found.is_chat == isinstance(asked, list)


def test_a_question_alone_will_do_where_nothing_is_judged():
    for row in ({"prompt": [USER]}, {"question": "Where?"}):
        assert exchange_of(row, {}, needs_answer=False).expected == ""
        with pytest.raises(ConfigError):
            exchange_of(row, {})


def test_a_text_column_of_another_name_counts_too():
    assert exchange_of({"content": TEXT}, QA, "content").asked == "Question: Where?\nAnswer:"


def test_a_text_that_does_not_say_where_its_answer_begins_is_a_guess():
    found = exchange_of({"text": "Where? Here."}, {"source": "Where?", "target": "Here."})
    assert (found.asked, found.expected, found.is_guess) == ("Where? Here.", "Where? Here.", True)


def test_rows_without_any_known_column_are_refused_with_their_names():
    with pytest.raises(ConfigError, match="the evaluation rows have a, input_ids"):
        exchange_of({"input_ids": [1]}, {"a": 1})


def test_a_question_is_read_without_the_marks_of_a_template():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Where?"}, {"type": "image"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "look", "arguments": {"at": 1}}}],
        },
        {"role": "tool", "content": "there", "tool_calls": None},
    ]
    assert Exchange(messages, "").words.splitlines() == [
        "system: Be brief.",
        "user: Where? [image]",
        "assistant: [calls look({'at': 1})]",
        "tool: there",
    ]
    assert Exchange("plain\ntext", "").words == "plain\ntext"
