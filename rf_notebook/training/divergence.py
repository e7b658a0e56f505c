"""Since which step are a run's losses or gradients NaN or infinite?

Kept on the device, and read when trl logs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Stands for "no step" in a tensor of steps.
_NEVER = 2**62
#: Numbers that are kept as they are before they are looked at together.
_MOST_SEEN = 512


class Divergence:
    """Watches one trainer.

    A window is what lies between two logs. A run has diverged while a window holds a step with a
    loss or a gradient norm that is NaN or infinite; a window without one ends it (a mixed-precision
    run whose loss overflowed once trains on). No step waits for the device, nor gives it work: what
    is seen stays there until ``end_window``, where all of it is looked at together.
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
        self._seen: dict[str, list[tuple[Tensor, int]]] = {"losses": [], "norms": []}
        """Numbers of the window that were not looked at yet, each with its step."""

    def see_loss(self, loss: Tensor, step: int) -> None:
        """Take in the loss of one micro-step, a number on the device.

        ``step`` is its optimizer step, counted from 1.
        """
        self._keep("losses", loss, step)

    def see_gradients(self, norm: Any, step: int) -> None:
        """The optimizer took step ``step`` with gradients of this norm.

        A number, on the device or not, or None.
        """
        if norm is not None:
            self._keep("norms", torch.as_tensor(norm), step)

    def _keep(self, kind: str, number: Tensor, step: int) -> None:
        self._seen[kind].append((number.detach(), step))
        if len(self._seen[kind]) >= _MOST_SEEN:
            self._look()

    def _look(self) -> None:
        """Take in what was seen since the last look."""
        for kind, seen in self._seen.items():
            if not seen:
                continue
            device = seen[-1][0].device
            numbers = torch.stack(
                [number.reshape(()).to(device, torch.float64) for number, _ in seen]
            )
            is_bad = ~torch.isfinite(numbers)
            steps = torch.tensor([step for _, step in seen], device=device)
            first = torch.where(is_bad, steps, _NEVER).min()
            before = self._first
            self._first = first if before is None else torch.minimum(before.to(device), first)
            if kind == "losses":
                bad_loss = torch.where(is_bad, numbers, 0.0).sum()
                summed = self._bad_loss
                self._bad_loss = bad_loss if summed is None else summed.to(device) + bad_loss
            seen.clear()

    def now(self) -> int | None:
        """The first bad step, with what the window shows so far; waits for the device."""
        self._look()
        first = _NEVER if self._first is None else int(self._first)
        if first == _NEVER:
            return self.since
        return first if self.since is None else self.since

    def end_window(self) -> float:
        """The window is logged: returns the sum of its bad losses, 0.0 when all were finite.

        Waits for the device.
        """
        self._look()
        bad_loss = 0.0 if self._bad_loss is None else float(self._bad_loss)
        first = _NEVER if self._first is None else int(self._first)
        self.since = None if first == _NEVER else self.now()
        self.has_bad_loss = self.has_bad_loss or bad_loss != 0.0
        self._bad_loss = self._first = None
        return bad_loss

    def as_plain(self) -> dict[str, Any]:
        """Numbers that a checkpoint can hold."""
        self._look()
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
