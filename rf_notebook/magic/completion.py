"""What can stand where somebody types after ``%rapidfire``?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from rf_notebook.automl.typed_text import config_keys
from rf_notebook.automl.yaml_grid import RUN_VALUES
from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.run import RunState
from rf_notebook.magic.parser import HELP, POSITIONAL
from rf_notebook.session.registry import recorded_experiments

if TYPE_CHECKING:
    from rf_notebook.experiment import Experiment
    from rf_notebook.magic.context import Context


def complete(context: Context, words: list[str], begun: str) -> list[str]:
    """What can stand where ``begun`` is typed.

    Args:
        context: What there is.
        words: Those before it, without the magic's own name.
        begun: May be empty.
    """
    if not words:
        return [name for name in HELP if name.startswith(begun)]
    command = words[0]
    try:
        experiment: Experiment | None = context.experiment
    except RFNotebookError:
        experiment = None
    offered: list[str] = []
    if command == "help":
        offered = list(HELP)
    elif command == "automate" and len(words) == 1:
        offered = ["halving", "async", "median", "rules", "off"]
    elif command in ("open", "remove"):
        offered = recorded_experiments()
    elif command == "run" and len(words) >= 2:
        offered = [name for name in context.variables if not name.startswith("_")]
        offered += [f"{name}=" for name in (*POSITIONAL, *RUN_VALUES)]
    elif command == "clone" and len(words) >= 2 and experiment is not None:
        keys = [
            key
            for record in list(context.session.state.runs.values())[:1]
            for key in config_keys(record.config)
        ]
        offered = [f"{key}=" for key in (*(key.rpartition(".")[2] for key in keys), *keys)] + [
            "--warm-start"
        ]
    elif (
        command
        in (
            "stop",
            "resume",
            "delete",
            "clone",
            "retry",
            "label",
            "pin",
            "unpin",
            "undo",
            "generate",
            "log",
            "export",
        )
        and experiment is not None
    ):
        offered = [str(run.id) for run in experiment.runs if run.state is not RunState.DELETED] + [
            "best",
            "all",
        ]
    return [word for word in dict.fromkeys(offered) if word.startswith(begun)]


def matcher(context: Context) -> Callable[[CompletionContext], dict[str, Any]]:
    """What IPython's completer asks for every line."""

    @context_matcher(identifier="rf_notebook.rapidfire", priority=150)  # type: ignore[untyped-decorator]
    def complete_line(typed: CompletionContext) -> dict[str, Any]:
        line = typed.line_with_cursor[: typed.cursor_position].lstrip()
        name, _, rest = line.partition(" ")
        if name not in ("%rapidfire", "%%rapidfire") or not line.startswith(f"{name} "):
            return {"completions": [], "suppress": False}
        words = rest.split(" ")
        begun = words[-1]
        found = complete(context, [word for word in words[:-1] if word], begun)
        made = [SimpleCompletion(word, type="rapidfire") for word in found]
        return {"completions": made, "suppress": bool(made), "matched_fragment": begun}

    return complete_line
