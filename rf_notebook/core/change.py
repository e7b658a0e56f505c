"""How do panels, waiting cells and the tracker learn that something changed?"""

from __future__ import annotations

import threading


class ChangeSignal:
    """Counts changes and wakes who waits for one; may be used from any thread."""

    def __init__(self, *, also: ChangeSignal | None = None) -> None:
        """A signal that has not changed yet.

        Args:
            also: Changes whenever this one does.
        """
        self._changed = threading.Condition()
        self._version = 0
        self._also = also

    @property
    def version(self) -> int:
        """Grows with every change."""
        return self._version

    def changed(self) -> None:
        """Something worth looking at changed."""
        with self._changed:
            self._version += 1
            self._changed.notify_all()
        if self._also is not None:
            self._also.changed()

    def wait(self, seen: int, timeout: float) -> int:
        """Wait until the version is beyond ``seen`` or the seconds are over.

        Returns the version.
        """
        with self._changed:
            if self._version == seen:
                self._changed.wait(timeout)
            return self._version
