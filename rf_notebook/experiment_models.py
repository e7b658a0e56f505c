"""The trained models of an experiment, as a user asks for them: loaded, exported, or answering."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.experiment_results import ExperimentResults
from rf_notebook.results.frames import texts_frame
from rf_notebook.session.commands import Commands

if TYPE_CHECKING:
    import pandas as pd

    from rf_notebook.session.session import RunLike, Session


class ExperimentModels(ExperimentResults):
    """The part of an ``Experiment`` that gives models."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._commands = Commands(session)

    def load(
        self,
        run: RunLike,
        create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None,
    ) -> Any:
        """A run's trained model, ready for inference; its newest checkpoint is what counts.

        Args:
            run: An id or a handle.
            create_model_fn: For an experiment that this kernel did not train; the hub's auto
                classes when omitted.
        """
        return self._commands.load(run, create_model=create_model_fn, origin="python")

    def export(
        self,
        run: RunLike,
        path: str | Path,
        merge: bool = False,
        create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None,
    ) -> Path:
        """Write a run's adapter, tokenizer and model card to a folder of the user's.

        Args:
            run: An id or a handle.
            path: A new or empty folder.
            merge: Write whole weights with the adapter folded in; those of a base in 4 or 8 bits are
                written in the type that it computes in.
            create_model_fn: See ``load``.

        Raises:
            ConfigError: when the folder holds something, or the adapter cannot be folded in.
        """
        return self._commands.export(
            run, path, merge=merge, create_model=create_model_fn, origin="python"
        )

    def push_to_hub(
        self,
        run: RunLike,
        repo: str,
        *,
        merge: bool = False,
        private: bool = True,
        token: str | None = None,
        create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None,
    ) -> str:
        """Upload what ``export`` writes to the Hugging Face Hub; no path of this machine is in it.

        Args:
            run: An id or a handle.
            repo: "user/name", or "name" for the user who is logged in; made when it is not there.
            merge: See ``export``.
            private: Whether a repository that is made is private.
            token: The hub's; the one that the user has logged in with when omitted.
            create_model_fn: See ``load``.

        Returns:
            The repository's address.

        Raises:
            ConfigError: when the hub refuses, and why.
        """
        return self._commands.push_to_hub(
            run,
            repo,
            merge=merge,
            private=private,
            token=token,
            create_model=create_model_fn,
            origin="python",
        )

    def generate(
        self,
        run: RunLike | Iterable[RunLike],
        prompts: str | Iterable[str],
        *,
        create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None,
        **settings: Any,
    ) -> pd.DataFrame:
        """What the models of runs write now, side by side.

        Training continues afterwards as if nothing had been asked.

        Args:
            run: An id, a handle, or several. A run in training answers as it stands, others from
                their checkpoint.
            prompts: What is asked; put into the chat template for runs that trained on messages.
            create_model_fn: See ``load``.
            settings: Arguments of ``generate``, such as ``max_new_tokens`` (64) and ``temperature``
                (which means sampling), and ``seed`` (0): the same seed gives the same texts.

        Returns:
            A row for each prompt, a column for each run.

        Raises:
            IllegalOperation: for a run that has no model yet.
        """
        is_several = isinstance(prompts, Iterable) and not isinstance(prompts, str)
        asked: list[Any] = list(prompts) if is_several else [prompts]
        if not asked or not all(isinstance(one, str) for one in asked):
            raise ConfigError(
                "generate(prompts=...) takes a text or a list of texts, at least one."
            )
        written = self._commands.generate(
            run, asked, settings, create_model=create_model_fn, origin="python"
        )
        return texts_frame(asked, written)
