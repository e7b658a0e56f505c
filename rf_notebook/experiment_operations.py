"""What a user asks of an experiment: stop, resume, clone, label a run, let a policy decide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rf_notebook.experiment_models import ExperimentModels

if TYPE_CHECKING:
    from rf_notebook.automation import Policy
    from rf_notebook.core.receipt import Receipt
    from rf_notebook.session.session import RunLike


class ExperimentOperations(ExperimentModels):
    """The part of an ``Experiment`` that changes its runs; may be used from any thread."""

    def stop(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """Take a run out of the rotation at its next step; nothing of it is lost.

        Args:
            run: An id, a handle, or several.

        Returns:
            A receipt; its ``result()`` is the run's handle, or a list of them for several.
        """
        return self._commands.operate("stop", run, "python")

    def resume(self, run: RunLike | Iterable[RunLike] | None = None) -> Receipt[Any]:
        """Put a stopped run back, exactly where it was. See ``stop``.

        Args:
            run: An id, a handle, or several; omitted, a paused experiment continues.
        """
        if run is None:
            return self._commands.set_paused(False, "python")
        return self._commands.operate("resume", run, "python")

    def pause(self) -> Receipt[Any]:
        """Give no run a turn until ``resume()``.

        The device is free, everything stays in memory, no run is stopped.
        """
        return self._commands.set_paused(True, "python")

    def delete(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """Remove a run, its memory and its checkpoints; its figures stay. See ``stop``."""
        return self._commands.operate("delete", run, "python")

    def clone(
        self, run: RunLike | Iterable[RunLike], edits: Any = None, warm_start: bool = False
    ) -> Receipt[Any]:
        """Add a run with the config of another and edits.

        Args:
            run: The parent, or several.
            edits: A dict by dotted key (``{"training_args.learning_rate": 5e-5}``), a nested dict,
                or a config; an RFDPOConfig or RFGRPOConfig makes the clone of an SFT run one of
                that method.
            warm_start: Start from the parent's adapter as it is now, instead of from scratch.

        Returns:
            A receipt; its ``result()`` is the new run's handle.

        Raises:
            ConfigError: for edits that cannot be.
        """
        return self._commands.clone(run, edits, warm_start, "python")

    def retry(self, run: RunLike) -> Receipt[Any]:
        """Clone a run that ran out of memory, with half its batch and twice its accumulation.

        Returns:
            A receipt; its ``result()`` is the new run's handle.

        Raises:
            IllegalOperation: for a run that did not fail so, or whose batch is one example.
        """
        return self._commands.retry(run, "python")

    def label(
        self,
        run: RunLike | Iterable[RunLike] | None = None,
        *,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        note: str | None = None,
    ) -> Receipt[None]:
        """Give a run a name, tags or a note, or the experiment tags or a note.

        They change nothing that is trained. They are in the table and its filter, the charts, the
        record, exports and, while the experiment is open, in MLflow. What is left out stays; ``""``
        and ``[]`` take away.

        Args:
            run: An id, a handle, or several; omitted, the experiment itself.
            name: One line of up to 60 characters, of one run.
            tags: Up to 20, each one line of up to 40 characters without a comma.
            note: Up to 10,000 characters.

        Returns:
            A receipt; done at once where nothing trains.

        Raises:
            ConfigError: for a label that cannot be.
            ReadOnlyExperiment: when another kernel trains this experiment.
        """
        return self._commands.label(run, "python", name=name, tags=tags, note=note)

    # ---- automation

    def automate(self, policy: Policy | None) -> Receipt[None]:
        """Let a policy decide at chunk boundaries from now on; None takes the wheel back.

        Its decisions are operations like a user's: recorded with its name and a reason, replayed at
        their steps, and undone by ``undo`` or ``resume``. Runs that are pinned, or that somebody
        resumed, are left alone. A policy that raises is set aside with a message.

        Args:
            policy: ``Halving()``, ``MedianStop()``, ``StopRules(...)``, several as
                ``Policies([...])``, or an object of yours with a ``name`` and ``decide(view)``,
                which gives ``Stop``, ``Resume`` and ``Clone``. Callbacks in the style of RapidFire
                AI (``register_runs``, ``on_chunk_complete``, ``finalize``) work, too.

        Raises:
            ConfigError: when it is not a policy, or decides by a metric that no run logs.
        """
        return self._commands.automate(policy, "python")

    def pin(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """Let policies leave a run, or several, alone."""
        return self._commands.pin(run, True, "python")

    def unpin(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """The inverse of ``pin``."""
        return self._commands.pin(run, False, "python")

    def undo(self, run: RunLike) -> Receipt[Any]:
        """Take back what a policy did last to a run.

        One that it stopped is resumed, a clone that it made is stopped.

        Raises:
            IllegalOperation: when no policy did anything to the run.
        """
        return self._commands.undo(run, "python")
