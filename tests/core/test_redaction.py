"""Secrets are found, in a time that grows with the text and not with its square."""

from __future__ import annotations

import time

import pytest

from rf_notebook.core.redaction import REDACTED, _variables_at, redact, secrets_in

#: Beginnings of what is looked for, which come again and again and lead to nothing.
FRAGMENTS = [
    "a.a.", "a+", "a://", "a://u:p", "user:pass@", "https://", "b:", "Bearer ", "Bearer\n", "?token=",
    "&sig", "password='", "my_secret_", "api_key", "'a_secret':'", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "----- ",
    "glpat-", "npm_", "AIza", "aws_secret_access_key=", "hf_", "sk-", "ghp_", "github_pat_", "AKIA", "xoxb-", "eyJaaaaaaaaaa-", "eyJaaaaaaaaaa.", " ", "x",
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
        ("glpat-abcdefghij0123456789 ", "* "),
        ("//registry/:_authToken=npm_" + "a1" * 18, "//registry/:_authToken=*"),
        ("AIza" + "Sy0_-" * 7, "*"),
        ("pypi-" + "AgEIcHlwaS5vcmc" * 4, "*"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENC\nMIIabc+/=\n-----END RSA PRIVATE KEY-----\nafter",
            "*\nafter",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIabc cut", "*"),
        ("password='hunter2'", "password='*'"),
        ('connect(db_password = "a b", user="me")', 'connect(db_password = "*", user="me")'),
        ("{'api_key': 'abc', \"secret\": \"x\"}", "{'api_key': '*', \"secret\": \"*\"}"),
        ('WANDB_API_KEY: "0123abc"', 'WANDB_API_KEY: "*"'),
        ("aws_secret_access_key = " + "aB3/" * 10, "aws_secret_access_key = *"),
        ("AccountKey=" + "aB3+" * 20 + "==;Endpoint", "AccountKey=*;Endpoint"),
        (
            "password=given, secret = getpass(), api_key=os.environ['KEY']",
            "password=given, secret = getpass(), api_key=os.environ['KEY']",
        ),
        ("password=''", "password=''"),
        (
            "eos_token, token=3, a.b.c://, sk-learn, eyJson",
            "eos_token, token=3, a.b.c://, sk-learn, eyJson",
        ),
    ],
)
def test_what_is_secret_is_replaced_and_the_rest_stays(text, left):
    assert redact(text) == left.replace("*", REDACTED)


def test_redacting_again_changes_nothing_and_what_was_found_is_named_once():
    text = "token hf_abcdefghijklmnop1234, hf_abcdefghijklmnop5678, password='x', https://a:b@c"
    once = redact(text)
    assert redact(once) == once
    assert secrets_in(text) == [
        "a Hugging Face token",
        "a password in an address",
        "a password or key",
    ]
    assert secrets_in(once) == []


def test_values_of_environment_variables_whose_names_say_so_are_secrets(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct-horse-battery")
    monkeypatch.setenv("MY_TOKEN_PATH", "/home/me/token")
    monkeypatch.setenv("DB_PASSWORD", "short")
    monkeypatch.setenv("PG_PASSWORD", "postgres")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-and-long")
    _variables_at.cache_clear()
    text = "it said correct-horse-battery at /home/me/token in short, false-and-long, postgres"
    assert (
        redact(text) == f"it said {REDACTED} at /home/me/token in short, false-and-long, postgres"
    )
    assert secrets_in(text) == ["the value of a secret environment variable"]
    _variables_at.cache_clear()
