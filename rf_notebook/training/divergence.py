"""Since which step are a run's losses or gradients NaN or infinite?

Kept on the device, and read when trl logs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Stands for "no step" in a tensor of steps.
_NEVER = 2**62


class Divergence:
    """Watches one trainer.

    A window is what lies between two logs. A run has diverged while a window holds a step with a
    loss or a gradient norm that is NaN or infinite; a window without one ends it (a mixed-precision
    run whose loss overflowed once trains on). No step waits for the device: what is seen stays
    there as two numbers until ``end_window``.
    """

    def __init__(self) -> None:
        self.since: int | None = None
        """The first bad step, as of the last window's end."""
        self.has_bad_loss = False
        """Whether any loss of the whole run was bad, so that the mean of all losses is not a number
        either."""
        self._bad_loss: Tensor | None = None
        """The sum of the window's bad losses: 0 without any, otherwise NaN or infinite."""
        self._first: Tensor | None = None
        """The window's first bad step."""

    def see_loss(self, loss: Tensor, step: int) -> None:
        """Take in the loss of one micro-step, a number on the device.

        ``step`` is its optimizer step, counted from 1.
        """
        loss = loss.detach()
        is_bad = ~torch.isfinite(loss)
        bad_loss = torch.where(is_bad, loss, torch.zeros_like(loss))
        self._bad_loss = bad_loss if self._bad_loss is None else self._bad_loss + bad_loss
        self._see(is_bad, step)

    def see_gradients(self, norm: Any, step: int) -> None:
        """The optimizer took step ``step`` with gradients of this norm.

        A number, on the device or not, or None.
        """
        if norm is not None:
            self._see(~torch.isfinite(torch.as_tensor(norm).detach()), step)

    def _see(self, is_bad: Tensor, step: int) -> None:
        first = torch.where(is_bad, step, _NEVER)
        self._first = (
            first
            if self._first is None
            else torch.minimum(self._first, first.to(self._first.device))
        )

    def now(self) -> int | None:
        """The first bad step, with what the window shows so far; waits for the device."""
        first = _NEVER if self._first is None else int(self._first)
        if first == _NEVER:
            return self.since
        return first if self.since is None else self.since

    def end_window(self) -> float:
        """The window is logged: returns the sum of its bad losses, 0.0 when all were finite.

        Waits for the device.
        """
        bad_loss = 0.0 if self._bad_loss is None else float(self._bad_loss)
        first = _NEVER if self._first is None else int(self._first)
        self.since = None if first == _NEVER else self.now()
        self.has_bad_loss = self.has_bad_loss or bad_loss != 0.0
        self._bad_loss = self._first = None
        return bad_loss

    def as_plain(self) -> dict[str, Any]:
        """Numbers that a checkpoint can hold."""
        return {
            "since": self.since,
            "has_bad_loss": self.has_bad_loss,
            "bad_loss": None if self._bad_loss is None else float(self._bad_loss),
            "first": None if self._first is None else int(self._first),
        }

    def restore(self, plain: dict[str, Any], device: torch.device) -> None:
        """The inverse of ``as_plain``."""
        self.since, self.has_bad_loss = plain["since"], plain["has_bad_loss"]
        bad_loss, first = plain["bad_loss"], plain["first"]
        self._bad_loss = None if bad_loss is None else torch.tensor(bad_loss, device=device)
        self._first = None if first is None else torch.tensor(first, device=device)
