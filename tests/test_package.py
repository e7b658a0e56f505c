"""What the package promises as a whole: names, floors, lightness."""

from __future__ import annotations

import ast
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

import rf_notebook

PACKAGE = Path(rf_notebook.__file__).parent

#: The floors, lowest first: a folder or file imports its own floor and lower ones, by type only
#: included.
FLOORS = [
    "core",
    "planning",
    "store",
    "automl",
    "results",
    "record",
    "automation",
    "training",
    "runners",
    "tracking",
    "engine",
    "views",
    "session",
    "widgets",
    "replay",
    "jupyterlab",
    "experiment_results",
    "experiment_models",
    "experiment_operations",
    "experiment",
    "shared",
    "demo",
    "magic",
    "fit",
    "evals",
    "registry",
    "testing",
    "__init__",
]
#: Libraries that only one place may import.
HOMES = {
    "torch": {"training", "testing", "demo", "tracking"},  # it holds TensorBoard's writer
    "transformers": {"training", "testing", "demo"},
    "trl": {"training"},
    "peft": {"training"},
    "accelerate": {"training"},
    "datasets": {"training", "testing", "demo"},
    "mlflow": {"tracking"},
    "wandb": {"tracking"},
    "trackio": {"tracking"},
    "optuna": {"automl", "automation", "tracking"},
    "sqlite3": {"store"},
    "pydantic": {"store", "record"},
    "ray": {"runners"},
    "rich": {"views", "demo"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "plotly": {"views", "widgets", "experiment_results", "automl"},  # the last two by type only
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


FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def own_imports(file: Path) -> set[str]:
    """The modules of this package that a file imports, wherever in it the import stands."""
    modules = {module_of(one) for one in FILES}
    found = set()
    for name in imports(file):
        if name.split(".")[0] == "rf_notebook":
            while name not in modules:  # a name in a module
                name = name.rpartition(".")[0]
            found.add(name)
    return found


def floor_of(module: str) -> int:
    parts = module.split(".")
    return FLOORS.index(parts[1] if len(parts) > 1 else "__init__")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_a_file_imports_its_own_floor_and_lower_ones(file):
    mine = module_of(file)
    above = [name for name in own_imports(file) if floor_of(name) > floor_of(mine)]
    assert not above, f"{mine} lies below {', '.join(above)}"
    for name in imports(file):
        library = name.split(".")[0]
        if library in HOMES:
            assert place(file) in HOMES[library], f"{mine} may not import {name}"


def test_no_files_import_each_other_in_a_circle():
    graph = {module_of(file): own_imports(file) - {module_of(file)} for file in FILES}
    with contextlib.suppress(StopIteration):
        while True:  # leaves are taken away until only circles are left
            leaf = next(name for name, targets in graph.items() if not targets & graph.keys())
            del graph[leaf]
    assert not graph, f"these import each other: {sorted(graph)}"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
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
import rf_notebook.magic.extension
from rf_notebook import Experiment, demo
slow = ("torch", "transformers", "trl", "peft", "mlflow", "numpy", "pandas", "datasets", "ipywidgets", "plotly", "nbformat")
print([n for n in slow if n in sys.modules])
"""
    first, second, first_cell = run(code).splitlines()
    seconds, heavy = first.split(" ", 1)
    assert float(seconds) < 0.3
    assert heavy == "[]"
    assert second == "False"
    assert first_cell == "[]", "the first cell of a notebook waits for these"


def test_the_public_names():
    assert rf_notebook.__all__ == [
        "CheckpointDamaged",
        "ConfigError",
        "Experiment",
        "IllegalOperation",
        "LeaseLost",
        "RFNotebookError",
        "ReadOnlyExperiment",
        "RecordDamaged",
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
    from rf_notebook.automl.adapter_configs import ADAPTER_CONFIGS

    adapters = [config.__name__ for config in ADAPTER_CONFIGS.values()]
    assert automl.__all__ == sorted(
        [
            *adapters,
            "List",
            "RFDPOConfig",
            "RFGRPOConfig",
            "RFGridSearch",
            "RFKTOConfig",
            "RFModelConfig",
            "RFOptuna",
            "RFRLOOConfig",
            "RFRandomSearch",
            "RFRewardConfig",
            "RFSFTConfig",
            "Range",
        ]
    )


def test_the_signature_of_run_fit_is_the_promised_one():
    import inspect

    names = list(inspect.signature(rf_notebook.Experiment.run_fit).parameters)
    assert names[1:7] == [
        "param_config",
        "create_model_fn",
        "train_dataset",
        "eval_dataset",
        "num_chunks",
        "seed",
    ]
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


#: Each is one thing that would only be scattered.
LONG_FILES = {"joint_model.py", "panel.py"}


def test_files_can_be_read_in_one_go():
    root = PACKAGE.parent
    folders = [root / name for name in ("rf_notebook", "tests", "benchmarks")]
    lengths = {
        path.relative_to(root): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in folder.rglob("*.py")
        if path.name not in LONG_FILES
    }
    assert len(lengths) > 400
    assert {path: lines for path, lines in lengths.items() if lines > 450} == {}
