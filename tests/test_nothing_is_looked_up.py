"""With everything on this machine nothing is looked up on the network, by the kernel or by its workers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rf_notebook.testing.tiny import tiny_model, tiny_tokenizer

ROOT = Path(__file__).parents[1]
#: In every Python process that the environment reaches; no library can take an audit hook away.
SPY = """
import os, sys, threading, traceback
def _hear(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyname_ex", "socket.sendto"):
        where = "".join(traceback.format_stack(limit=25))
    elif event == "socket.connect" and isinstance(args[1], tuple):
        where = ""
    else:
        return
    with open(os.environ["LOOK_UPS"], "a") as file:
        file.write(f"{event} {args[1:] if event == 'socket.connect' else args} {threading.current_thread().name}\\n{where}\\n")
sys.addaudithook(_hear)
"""
#: A user's cell; what pytest and CI set, which silences some libraries, is not set there.
CELL = """
import sys
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import prompt_rows
def main():
    experiment = Experiment("quiet", experiment_path=sys.argv[1])
    training = dict(learning_rate=List([1e-3, 1e-2]), per_device_train_batch_size=4, max_length=64, use_cpu=True, bf16=False)
    config = RFModelConfig(
        model_name=sys.argv[2], peft_config=RFLoraConfig(r=4, target_modules=["q_proj"]), training_args=RFSFTConfig(**training)
    )
    devices = sys.argv[3].split(",") if sys.argv[3] else None
    experiment.run_fit(
        RFGridSearch(config, "SFT"), None, prompt_rows(8, 1), prompt_rows(4, 2), num_chunks=2, display=False, devices=devices
    )
    assert experiment.wait(200)
    assert [str(run.state) for run in experiment.runs] == ["completed"] * 2, experiment.runs[0].traceback
    experiment.load(1)
    experiment.export(1, sys.argv[1] + "/adapter")
    experiment.end()
    assert "mlflow" in sys.modules, "it kept the record, too"
main()
"""
LOADING = """
import sys
from rf_notebook import Experiment
Experiment("quiet", experiment_path=sys.argv[1]).load(1)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in a folder."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def run(code: str, folder: Path, *arguments: str) -> str:
    """What a process that runs the code looked up."""
    spy, heard = folder / "spy", folder / "look_ups.txt"
    spy.mkdir(exist_ok=True)
    (spy / "sitecustomize.py").write_text(SPY)
    heard.write_text("")
    silent = ("CI", "DO_NOT_TRACK", "PYTEST_")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((*silent, "MLFLOW_", "HF_", "TRANSFORMERS_", "GITHUB_"))
    } | {
        "HOME": str(folder),
        "PYTHONPATH": f"{spy}{os.pathsep}{ROOT}",
        "LOOK_UPS": str(heard),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not done.returncode, done.stderr[-3000:]
    return heard.read_text()


@pytest.mark.parametrize("devices", ["", "cpu,cpu"], ids=["kernel", "workers"])
def test_an_ordinary_experiment_looks_nothing_up(tmp_path, base, devices):
    assert run(CELL, tmp_path, str(tmp_path / "experiments"), str(base), devices) == ""
    assert run(LOADING, tmp_path, str(tmp_path / "experiments")) == ""


def test_the_spy_hears_a_look_up(tmp_path):
    code = "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('host.invalid', 80)"
    assert "host.invalid" in run(code, tmp_path)
