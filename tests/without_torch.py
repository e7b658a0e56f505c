"""A pytest plugin under which torch, mlflow and the like cannot be imported.

`make unit` runs with it.

Where they lie may still be asked, for configs read the arguments of the libraries' classes from
their source.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn

REFUSED = ("torch", "mlflow", "transformers", "trl", "peft", "accelerate", "datasets")


class _Refused(Loader):
    def exec_module(self, module: ModuleType) -> None:
        """Never comes to it; importlib asks whether it is there."""

    def create_module(self, spec: ModuleSpec) -> NoReturn:
        raise ImportError(
            f"a unit test imports {spec.name}; it belongs to the others, or wants the fake runner"
        )


class _Refusing(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in REFUSED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Refused()
        return spec


assert not set(REFUSED) & sys.modules.keys(), "imported before the tests began"
sys.meta_path.insert(0, _Refusing())
