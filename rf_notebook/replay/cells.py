"""Running a notebook's cells in a namespace of their own, after somebody agreed to it."""

from __future__ import annotations

import builtins
import linecache
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import redact

#: Magics that a replay leaves out: they prepare a notebook and compute nothing.
LEFT_OUT = frozenset(
    ["load_ext", "reload_ext", "matplotlib", "autoreload", "config", "pip", "conda", "uv"]
)
#: A magic of ours: the namespace of the cells, the rest of the line, and the cell below it, if
#: there is one.
OwnMagic = Callable[[dict[str, Any], str, str | None], Any]


class CellOver(BaseException):
    """Ends the running cell, silently: what a replay needs of it is done.

    No Exception, so that no cell catches it.
    """


class Shell:
    """What the cells find when they ask for IPython.

    Our magic, and the user's own shell for others.
    """

    def __init__(self, namespace: dict[str, Any], magics: Mapping[str, OwnMagic]) -> None:
        self.user_ns = namespace
        self._magics = magics

    def run_line_magic(self, name: str, line: str, *_args: Any, **_kwargs: Any) -> Any:
        """``%name line``."""
        if name in self._magics:
            return self._magics[name](self.user_ns, line, None)
        if name in LEFT_OUT:
            return None
        return self._users(name).run_line_magic(name, line)

    def run_cell_magic(self, name: str, line: str, cell: str) -> Any:
        """``%%name line`` and the cell below it."""
        if name in self._magics:
            return self._magics[name](self.user_ns, line, cell)
        return self._users(name).run_cell_magic(name, line, cell)

    def system(self, command: str) -> None:
        """``!command``."""
        self._users("!").system(command)

    def getoutput(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """``name = !command``."""
        return self._users("!").getoutput(command, *args, **kwargs)

    def _users(self, name: str) -> Any:
        ipython = sys.modules.get("IPython")
        shell = None if ipython is None else ipython.get_ipython()
        if shell is None:
            raise ConfigError(
                f"the cell uses %{name}, which needs IPython; replay it in a notebook."
            )
        return shell


def run_cells(
    cells: Sequence[str],
    namespace: dict[str, Any],
    magics: Mapping[str, OwnMagic],
    *,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run cells one after another.

    Args:
        cells: Their texts, IPython's syntax included.
        namespace: Theirs; empty.
        magics: Line and cell magics that are ours.
        stop: Asked after each cell whether the rest is left out.

    Raises:
        ConfigError: naming the cell that failed.
    """
    namespace.update({"__name__": "__main__", "__builtins__": builtins})
    shell = Shell(namespace, magics)
    namespace["get_ipython"] = lambda: shell
    for number, cell in enumerate(cells, start=1):
        try:
            run_cell(cell, f"cell {number}", namespace)
        except CellOver:
            pass
        except ConfigError as error:
            raise ConfigError(f"cell {number}: {error}") from error
        except Exception as error:
            raise ConfigError(
                f"cell {number} raised {type(error).__name__}: {redact(str(error))[:300]}."
            ) from error
        if stop():
            break


def run_cell(cell: str, name: str, namespace: dict[str, Any]) -> None:
    """Run one cell, or a function's source; what it raises is its own."""
    name = f"<replayed {name}, {id(namespace):x}>"
    source = TransformerManager().transform_cell(cell)
    # Where inspect finds the source of what the cell defines, for traceback and for digests of
    # functions.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), namespace)
