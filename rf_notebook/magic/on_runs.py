"""The sub-commands about the runs of the experiment that was used last.

Each is one call of the Python API.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from typing import Any

from rf_notebook.automl.typed_text import edits_of, parse_values
from rf_notebook.automl.validation import unknown_argument
from rf_notebook.core.errors import ConfigError
from rf_notebook.magic.context import PATIENCE_SECONDS, Context, Text
from rf_notebook.results.frames import texts_frame
from rf_notebook.results.log_lines import log_lines


class OnRuns:
    """A method for each sub-command, of its parsed arguments."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def status(self, given: argparse.Namespace) -> Any:
        """The table of runs."""
        from rf_notebook.views.runs_table import runs_table_frame

        return runs_table_frame(self._context.session.recent_state)

    def devices(self, given: argparse.Namespace) -> Any:
        """The table of devices."""
        return self._context.experiment.get_devices()

    def panel(self, given: argparse.Namespace) -> Any:
        """The live panel."""
        return self._context.experiment.panel()

    def stop(self, given: argparse.Namespace) -> Any:
        """Take runs out of the rotation."""
        return self._operate("stop", given.runs)

    def resume(self, given: argparse.Namespace) -> Any:
        """Put runs back, or let a paused experiment continue."""
        if not given.runs:
            return self._context.commands.set_paused(False, "magic").result(PATIENCE_SECONDS)
        return self._operate("resume", given.runs)

    def pause(self, given: argparse.Namespace) -> Any:
        """Give no run a turn."""
        return self._context.commands.set_paused(True, "magic").result(PATIENCE_SECONDS)

    def delete(self, given: argparse.Namespace) -> Any:
        """Remove runs."""
        return self._operate("delete", given.runs)

    def _operate(self, verb: str, words: Sequence[str]) -> Any:
        run_ids = self._context.run_ids(words, verb=verb)
        made = self._context.commands.operate(verb, run_ids, "magic").result(PATIENCE_SECONDS)
        return made[0] if len(made) == 1 else made

    def clone(self, given: argparse.Namespace) -> Any:
        """Add a run with edits."""
        (run_id,) = self._context.run_ids([given.run], single=True)
        typed = {}
        for word in given.edits:
            key, is_edit, value = word.partition("=")
            if not is_edit:
                raise ConfigError(
                    f"{word!r} is not an edit; write key=value, as in learning_rate=5e-5."
                )
            typed[key] = value
        edits = edits_of(typed, self._context.session.state.record(run_id).config)
        receipt = self._context.commands.clone_all(run_id, edits, given.warm_start, "magic")
        made = receipt.result(PATIENCE_SECONDS)
        return made[0] if len(made) == 1 else made

    def retry(self, given: argparse.Namespace) -> Any:
        """Add a run with half the batch of one that ran out of memory."""
        (run_id,) = self._context.run_ids([given.run], single=True)
        return self._context.commands.retry(run_id, "magic").result(PATIENCE_SECONDS)

    def automate(self, given: argparse.Namespace) -> None:
        """Let a policy decide, or none."""
        self._context.commands.automate(self._policy(given.policy, given.settings), "magic").result(
            PATIENCE_SECONDS
        )

    def _policy(self, word: str, settings: Sequence[str]) -> Any:
        from rf_notebook.automation import AsyncHalving, Halving, MedianStop, StopRules

        if word == "off":
            return None
        built_in = {
            "halving": Halving,
            "async": AsyncHalving,
            "median": MedianStop,
            "rules": StopRules,
        }
        if word not in built_in:
            if settings:
                raise ConfigError(
                    f"settings are for {', '.join(built_in)}; {word!r} is a variable that holds a policy."
                )
            return self._context.variable(word)
        known = tuple(inspect.signature(built_in[word]).parameters)
        typed = {}
        for one in settings:
            key, is_named, value = one.partition("=")
            if not is_named or key not in known:
                raise unknown_argument(built_in[word].__name__, key, known)
            (typed[key],) = parse_values(value)
        return built_in[word](**typed)

    def label(self, given: argparse.Namespace) -> None:
        """Give runs, or the experiment, a name, tags or a note."""
        runs = self._context.run_ids(given.runs) if given.runs else None
        tags = None if given.tags is None else [one for one in given.tags.split(",") if one.strip()]
        self._context.commands.label(
            runs, "magic", name=given.name, tags=tags, note=given.note
        ).result(PATIENCE_SECONDS)

    def pin(self, given: argparse.Namespace) -> None:
        """Let policies leave runs alone."""
        self._context.commands.pin(self._context.run_ids(given.runs), True, "magic").result(
            PATIENCE_SECONDS
        )

    def unpin(self, given: argparse.Namespace) -> None:
        """Let policies decide about runs again."""
        self._context.commands.pin(self._context.run_ids(given.runs), False, "magic").result(
            PATIENCE_SECONDS
        )

    def undo(self, given: argparse.Namespace) -> Any:
        """Take back what a policy did last to a run."""
        (run_id,) = self._context.run_ids([given.run], single=True)
        return self._context.commands.undo(run_id, "magic").result(PATIENCE_SECONDS)

    def decisions(self, given: argparse.Namespace) -> Any:
        """What policies did, and why."""
        return self._context.experiment.decisions

    def generate(self, given: argparse.Namespace) -> Any:
        """What runs write to a prompt."""
        run_ids, settings = self._context.run_ids([given.runs]), {"max_new_tokens": given.tokens}
        written = self._context.commands.generate(run_ids, given.prompts, settings, origin="magic")
        return texts_frame(given.prompts, written)

    def wait(self, given: argparse.Namespace) -> bool:
        """Wait until no run wants to train."""
        return self._context.experiment.wait(given.seconds)

    def log(self, given: argparse.Namespace) -> Text:
        """What happened to a run."""
        (run_id,) = self._context.run_ids([given.run], single=True)
        return Text(
            "\n".join(log_lines(self._context.session.state, run_id))
            or f"run {run_id}: nothing yet"
        )

    def end(self, given: argparse.Namespace) -> None:
        """Wait, and close the experiment."""
        self._context.experiment.end(cancel=given.now)
