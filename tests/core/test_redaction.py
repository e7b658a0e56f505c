"""Secrets are found, in a time that grows with the text and not with its square."""

from __future__ import annotations

import time

import pytest

from rf_notebook.core.redaction import REDACTED, redact

#: Beginnings of what is looked for, which come again and again and lead to nothing.
FRAGMENTS = [
    "a.a.", "a+", "a://", "a://u:p", "user:pass@", "https://", "b:", "Bearer ", "Bearer\n", "?token=",
    "&sig", "hf_", "sk-", "ghp_", "github_pat_", "AKIA", "xoxb-", "eyJaaaaaaaaaa-", "eyJaaaaaaaaaa.", " ", "x",
]  # fmt: skip


def seconds(text):
    began = time.process_time()
    redact(text)
    return time.process_time() - began


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_text_of_any_kind_takes_no_time_to_speak_of(fragment):
    """Patterns that try each place against the rest took 7 s for 80 kB, and held the interpreter."""
    for text in (
        fragment * (400_000 // len(fragment)),
        "a://" + fragment * (400_000 // len(fragment)),
    ):
        assert seconds(text) < 5, "where it is quadratic, minutes"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:hunter2@host/x", "https://me:*@host/x"),
        ("s3+http://k.e-y:pw@host", "s3+http://k.e-y:*@host"),
        ("x-hf_abcdefghijklmnop1234.", "x-*."),
        ("(sk-abcdefghijklmnopqrst)", "(*)"),
        ("'ghp_abcdefghijklmnopqrstuv'", "'*'"),
        ("Bearer abcdefgh.ijkl==", "Bearer *"),
        ("/x?a=1&token=abc&b=2", "/x?a=1&token=*&b=2"),
        ("=eyJabcdefghij.abcdefghij.abc_defghij ", "=* "),
        (
            "eos_token, token=3, a.b.c://, sk-learn, eyJson",
            "eos_token, token=3, a.b.c://, sk-learn, eyJson",
        ),
    ],
)
def test_what_is_secret_is_replaced_and_the_rest_stays(text, left):
    assert redact(text) == left.replace("*", REDACTED)
