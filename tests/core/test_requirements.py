"""Libraries that are too old are told in one sentence, before anything is imported from them."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from rf_notebook.core import requirements
from rf_notebook.core.requirements import TRAINING, lower_bounds, too_old


def installed(monkeypatch, **versions):
    real = importlib.metadata.version
    monkeypatch.setattr(
        requirements.importlib.metadata,
        "version",
        lambda name: versions[name] if name in versions else real(name),
    )


def test_the_bounds_are_those_of_the_package():
    bounds = lower_bounds()
    assert set(TRAINING) <= bounds.keys()
    assert (bounds["trl"], bounds["transformers"]) == ("1.16", "5.3")
    assert "bitsandbytes" not in bounds, "an extra's"


def test_what_is_installed_here_is_new_enough():
    assert list(too_old(*TRAINING)) == []


@pytest.mark.parametrize("version", ["1.15.9", "0.9", "1.9", "1.15.0.dev0"])
def test_something_too_old_is_told_with_what_to_do(monkeypatch, version):
    installed(monkeypatch, trl=version)
    assert list(too_old("trl", "peft")) == [
        f"rf_notebook needs trl 1.16 or newer, and {version} is installed; "
        "run pip install -U 'trl>=1.16' and restart the kernel."
    ]


@pytest.mark.parametrize("version", ["1.16", "1.16.0", "1.16.0.dev0", "1.16.1", "1.100", "2"])
def test_the_bound_itself_and_what_is_newer_will_do(monkeypatch, version):
    installed(monkeypatch, trl=version)
    assert list(too_old("trl")) == []


@pytest.mark.starts_processes
def test_importing_beside_something_too_old_is_one_sentence(tmp_path):
    (tmp_path / "transformers-5.0.0.dist-info").mkdir()
    (tmp_path / "transformers-5.0.0.dist-info" / "METADATA").write_text(
        "Name: transformers\nVersion: 5.0.0\n"
    )
    code = """
import rf_notebook
from rf_notebook.automl import RFLoraConfig, RFModelConfig, RFSFTConfig
try:
    rf_notebook.Experiment("x").run_fit(RFModelConfig(model_name="m", training_args=RFSFTConfig()), None, [{"text": "a"}])
except rf_notebook.ConfigError as error:
    print(error)
try:
    import rf_notebook.training.runner
except ImportError as error:
    print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "PATH": ""},
    ).stdout.splitlines()
    sentence = (
        "rf_notebook needs transformers 5.3 or newer, and 5.0.0 is installed; "
        "run pip install -U 'transformers>=5.3' and restart the kernel."
    )
    assert told == [sentence, sentence]
