"""RapidFire AI's controls in a notebook; here they are the live panel's."""

from __future__ import annotations

from rf_notebook.core.errors import IllegalOperation
from rf_notebook.experiment import latest_experiment


class InteractiveController:
    """Shows the live panel of the experiment that was trained last."""

    def __init__(self, dispatcher_url: str | None = None) -> None:
        """Nothing is shown yet.

        Args:
            dispatcher_url: Of RapidFire AI's service; there is none here, so it is not used.
        """

    def display(self) -> None:
        """Show the panel below the running cell.

        Raises:
            IllegalOperation: before ``run_fit`` was called.
        """
        experiment = latest_experiment()
        if experiment is None:
            raise IllegalOperation("there is no experiment to control yet; call run_fit first.")
        experiment.panel().show()

    def auto_refresh(self, interval: int = 5) -> None:
        """The same: the panel is always up to date.

        Args:
            interval: Of RapidFire AI's, in seconds; not used.
        """
        self.display()

    def _ipython_display_(self) -> None:
        self.display()
