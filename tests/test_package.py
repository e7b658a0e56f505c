"""What the package promises as a whole: names, floors, lightness."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rf_notebook

PACKAGE = Path(rf_notebook.__file__).parent

#: Which folders and files a folder or file may import from, besides itself. Read: a floor imports lower floors only.
FLOORS = {
    "core": set(),
    "planning": {"core"},
    "automl": {"core"},
    "store": {"core"},
    "tracking": {"core", "store"},
    "training": {"core", "planning", "automl", "store"},
    "automation": {"core", "automl", "results"},
    "engine": {"core", "automation", "planning", "store"},
    "testing": {"core", "planning", "automl", "engine", "jupyterlab", "store", "training", "widgets"},
    "results": {"core", "planning"},
    "views": {"core", "results"},
    "widgets": {"core", "automl", "engine", "results", "views"},
    "jupyterlab": {"core", "engine", "results", "views", "widgets"},
    "record": {"core"},
    "replay": {"core", "record"},
    "registry": {"store", "experiment"},  # the last by type only
    "host": {
        "core",
        "automl",
        "engine",
        "jupyterlab",
        "record",
        "widgets",
        "experiment",
    },  # by type only: two files of one thing
    "kernel_experiments": {"core", "host", "jupyterlab", "registry", "store", "experiment"},  # likewise
    "launch": {"core", "planning", "automation", "automl", "engine", "training"},
    "recorded": {"core", "automl", "launch"},
    "training_session": {"core", "automation", "engine", "launch", "store", "tracking", "training"},
    "rehearsal": {"core", "automl", "engine", "launch", "record", "replay", "experiment"},  # the last by type only
    "once_more": {
        "core",
        "engine",
        "jupyterlab",
        "planning",
        "record",
        "registry",
        "replay",
        "views",
        "widgets",
        "experiment",
    },  # likewise
    "shared": {
        "core",
        "engine",
        "experiment",
        "launch",
        "registry",
        "rehearsal",
        "record",
        "replay",
        "training",
        "widgets",
        "magic",
    },
    "experiment": {
        "core",
        "automation",
        "automl",
        "engine",
        "launch",
        "tracking",
        "host",
        "kernel_experiments",
        "jupyterlab",
        "once_more",
        "recorded",
        "registry",
        "rehearsal",
        "results",
        "views",
        "store",
        "training",
        "training_session",
        "widgets",
    },
    "fit": {"core", "registry", "rehearsal"},
    "evals": {"fit"},
    "demo": {"automl", "results", "experiment"},
    "magic": {
        "core",
        "automation",
        "automl",
        "demo",
        "store",
        "tracking",
        "training",
        "experiment",
        "host",
        "registry",
        "results",
        "shared",
        "views",
        "widgets",
    },
    "__init__": {"core", "automl", "demo", "experiment", "magic", "results", "shared"},
}
#: Libraries that only one place may import.
HOMES = {
    "torch": {"training", "testing", "demo"},
    "transformers": {"training", "testing", "demo"},
    "trl": {"training"},
    "peft": {"training"},
    "accelerate": {"training"},
    "datasets": {"training", "testing", "demo"},
    "mlflow": {"tracking"},
    "optuna": {"automl", "automation", "tracking"},
    "sqlite3": {"store"},
    "pydantic": {"store", "record"},
    "rich": {"views", "demo"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "plotly": {"views", "widgets", "experiment", "automl"},  # the last two by type only
    "matplotlib": {"views"},
    "yaml": {"automl"},
    "comm": {"jupyterlab"},
    "nbformat": {"replay"},
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "rf_notebook" else {node.module}
    return found


def place(file: Path) -> str:
    relative = file.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_a_file_imports_its_own_floor_and_lower_ones(file):
    mine = place(file)
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "rf_notebook" and len(parts) > 1:
            target = parts[1] if (PACKAGE / parts[1]).exists() or (PACKAGE / f"{parts[1]}.py").exists() else "__init__"
            if mine == "demo" and target == "__init__":
                continue
            names = {"Experiment": "experiment", "demo": "demo", "automl": "automl"}
            target = names.get(parts[1], target)
            assert target == mine or target in FLOORS[mine], f"{mine} may not import {name}"
        if parts[0] in HOMES:
            assert mine in HOMES[parts[0]], f"{mine} may not import {name}"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_importing_loads_nothing_heavy_and_takes_less_than_a_third_of_a_second():
    code = """
import sys, time
started = time.process_time()
import rf_notebook
seconds = time.process_time() - started
heavy = [n for n in ("torch", "transformers", "trl", "peft", "mlflow", "pandas", "numpy", "datasets", "ipywidgets")
         if n in sys.modules]
print(seconds, heavy)
from rf_notebook.automl import RFSFTConfig, RFLoraConfig, List
RFSFTConfig(learning_rate=List([1e-3])), RFLoraConfig(r=8)
print("torch" in sys.modules)
"""
    first, second = run(code).splitlines()
    seconds, heavy = first.split(" ", 1)
    assert float(seconds) < 0.3
    assert heavy == "[]"
    assert second == "False"


def test_the_public_names():
    assert rf_notebook.__all__ == [
        "CheckpointDamaged",
        "ConfigError",
        "Experiment",
        "IllegalOperation",
        "LeaseLost",
        "RFNotebookError",
        "ReadOnlyExperiment",
        "Run",
        "SharedExperiment",
        "StorageFull",
        "StoreError",
        "UnknownRun",
        "automl",
        "demo",
    ]
    for name in rf_notebook.__all__:
        assert getattr(rf_notebook, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rf_notebook.nothing  # noqa: B018
    from rf_notebook import automl

    assert automl.__all__ == [
        "List",
        "RFDPOConfig",
        "RFGRPOConfig",
        "RFGridSearch",
        "RFIA3Config",
        "RFLNTuningConfig",
        "RFLoHaConfig",
        "RFLoKrConfig",
        "RFLoraConfig",
        "RFModelConfig",
        "RFOFTConfig",
        "RFOptuna",
        "RFPrefixTuningConfig",
        "RFPromptEncoderConfig",
        "RFPromptTuningConfig",
        "RFRandomSearch",
        "RFSFTConfig",
        "RFVeraConfig",
        "Range",
    ]


def test_the_signature_of_run_fit_is_the_promised_one():
    import inspect

    names = list(inspect.signature(rf_notebook.Experiment.run_fit).parameters)
    assert names[1:7] == ["param_config", "create_model_fn", "train_dataset", "eval_dataset", "num_chunks", "seed"]
    assert names[7:11] == ["num_shards", "execution", "data_seed", "display"]


def test_errors_are_also_the_builtins_they_stand_for():
    for name, builtin in {
        "ConfigError": ValueError,
        "IllegalOperation": RuntimeError,
        "UnknownRun": LookupError,
        "ReadOnlyExperiment": PermissionError,
        "StoreError": OSError,
    }.items():
        cls = getattr(rf_notebook, name)
        assert issubclass(cls, builtin)
        assert issubclass(cls, rf_notebook.RFNotebookError)
