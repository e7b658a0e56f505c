"""What looks like a secret is in no file of the experiment, and is told where it was given."""

from __future__ import annotations

import pytest

from rf_notebook.core.run import Generation
from rf_notebook.engine.results import without_secrets
from tests.api.world import fit, two

TOKEN = "hf_abcdefghijklmnopqrstuv"


def test_a_sample_prompt_with_a_token_is_told_and_written_nowhere(new):
    with pytest.warns(
        UserWarning, match="sample_prompts holds what looks like a Hugging Face token"
    ):
        experiment = fit(new(), two(), sample_prompts=[f"My token is {TOKEN}; is it safe?"])
    experiment.end()
    for file in experiment.folder.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file


def test_answers_are_recorded_without_secrets():
    said = Generation(
        prompt=f"p {TOKEN}", text=f"t {TOKEN}", asked=f"a {TOKEN}", expected="password='x'"
    )
    assert TOKEN not in repr(without_secrets(said))
    assert without_secrets(said).expected == "password='[redacted]'"
