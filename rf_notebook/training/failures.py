"""Why did a run end, and what could be done about it?"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import torch

from rf_notebook.core.errors import CheckpointDamaged, RFNotebookError
from rf_notebook.core.redaction import as_told
from rf_notebook.core.run import LONGEST_MESSAGE, LONGEST_TRACEBACK, Failure, RunConfig
from rf_notebook.planning.memory_plan import edits_sentence, gibibytes, halved_batch
from rf_notebook.training import memory
from rf_notebook.training.methods import method_named

if TYPE_CHECKING:
    from rf_notebook.training.memory_estimate import Need


def failure_of(
    error: BaseException, config: RunConfig, text: str | None = None, need: Need | None = None
) -> Failure:
    """What a run's error says, as text only: frames would hold activations and device memory.

    Args:
        error: What was raised.
        config: The run's config.
        text: Its traceback, where it is gone already.
        need: What the memory plan said.

    Raises:
        CheckpointDamaged: as it came, for that is not the run's failure: it continues from the
            checkpoint before.
    """
    if isinstance(error, CheckpointDamaged):
        raise error
    message = as_told(
        f"{type(error).__name__}: {error}"
        if not isinstance(error, RFNotebookError)
        else str(error),
        LONGEST_MESSAGE,
    )
    full = as_told(
        text if text is not None else "".join(traceback.format_exception(error)), LONGEST_TRACEBACK
    )
    if not isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return Failure(message=message, traceback=full)
    peak, estimated = memory.peak_bytes(), None if need is None else need.estimate
    least = method_named(config.method).least_examples(config.training)
    retry = halved_batch(config.training, least)
    told = "out of device memory"
    if peak is not None:
        told += f" at a peak of {gibibytes(peak)} GiB"
    if estimated is not None:
        told += f", where {estimated.sentence()} were estimated"
    if retry:
        remedy = f"retry it with {edits_sentence(retry)}, which keeps the examples of a step"
    else:
        remedy = "set gradient_checkpointing=True, or use a smaller max_length or model"
    return Failure(
        message=f"{told}; {remedy}. {message}",
        traceback=full,
        out_of_memory=True,
        peak_bytes=peak,
        estimated_bytes=None if estimated is None else estimated.total,
        retry=retry,
    )
