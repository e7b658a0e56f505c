"""RapidFire AI's other controls in a notebook; here they are the live panel's, too."""

from __future__ import annotations

from rf_notebook.fit.utils.interactive_controller import InteractiveController


class NotebookUI(InteractiveController):
    """Shows the live panel of the experiment that was trained last."""

    def __init__(
        self,
        dispatcher_url: str | None = None,
        refresh_rate_seconds: float = 3.0,
        auth_token: str | None = None,
    ) -> None:
        """Nothing is shown yet.

        Args:
            dispatcher_url: Of RapidFire AI's service; there is none here, so it is not used.
            refresh_rate_seconds: Has no effect; the panel is always up to date.
            auth_token: Has no effect.
        """
