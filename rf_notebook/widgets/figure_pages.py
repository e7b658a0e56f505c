"""The page that compares runs, and what pages of charts are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from rf_notebook.core.metrics import SPEEDS
from rf_notebook.views import compare
from rf_notebook.views.document import element
from rf_notebook.views.knobs import knobs_page
from rf_notebook.widgets.chart import Chart
from rf_notebook.widgets.elements import (
    Document,
    OwnSetting,
    reachable_while_busy,
    set_changed,
)

if TYPE_CHECKING:
    from rf_notebook.views.runs_table import RunsView

#: Runs of every kind.
_ALL = "all methods"
_HINT = (
    "Drag over points or lines to select their runs; with Shift, through one more place. A double click "
    "takes it back."
)


class Choice:
    """A dropdown that follows what is there until the user chooses."""

    def __init__(
        self, description: str, options: Sequence[str], on_chosen: Callable[[], None]
    ) -> None:
        """Nothing is chosen yet.

        Args:
            description: Its label.
            options: What it offers at first.
            on_chosen: Called when the user chose.
        """
        made = ipywidgets.Dropdown(
            description=description, options=list(options), layout={"width": "max-content"}
        )
        self.widget = reachable_while_busy(made)
        self._wanted: str | None = None
        self._setting = OwnSetting()
        self._on_chosen = on_chosen
        self.widget.observe(self._changed, names="value")

    @property
    def value(self) -> str:
        """What is shown."""
        return str(self.widget.value)

    @property
    def is_chosen(self) -> bool:
        """Whether the user has chosen."""
        return self._wanted is not None

    def choose(self, value: str | None) -> None:
        """Have a value that the user has chosen, also one that is not offered yet; None for none."""
        self._wanted = value
        if value is not None and value in self.widget.options:
            with self._setting:
                set_changed(self.widget, value=value)

    def offer(self, options: Sequence[str], usual: str) -> None:
        """Change what can be chosen; a choice that is still possible stays."""
        keep = self._wanted in options
        with self._setting:
            set_changed(self.widget, options=list(options), value=self._wanted if keep else usual)

    def _changed(self, _change: Any) -> None:
        if not self._setting.is_on:
            self._wanted = str(self.widget.value)
            self._on_chosen()


class ComparePage:
    """Two metrics against each other, and all knobs against the metric.

    ``box`` is what is shown.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        on_click: Callable[[int], None],
        on_brush: Callable[[list[int]], None],
    ) -> None:
        """Empty charts.

        Args:
            on_change: See CurvesPage.
            on_click: See CurvesPage.
            on_brush: Called with the runs that the user's boxes leave.
        """
        self.x = Choice("compare", [compare.MEMORY], on_change)
        self.y = Choice("with", [compare.MEMORY], on_change)
        self.scatter = reachable_while_busy(
            Chart(on_click=on_click, on_brush=on_brush, height=280, label="two metrics of each run")
        )
        self.parallel = reachable_while_busy(
            Chart(
                on_click=on_click,
                on_brush=on_brush,
                height=280,
                label="knobs of each run against the metric",
            )
        )
        self.knobs = Document()
        self.hint = Document()
        self.hint.show(element("span", _HINT, class_="rf-dim"))
        tools = tools_row(self.x.widget, self.y.widget, self.hint)
        self.box = page_box(tools, self.scatter, self.parallel, self.knobs)

    def offer(self, metrics: Sequence[str]) -> None:
        """Change which metrics can be compared."""
        options = [*metrics, *SPEEDS, compare.MEMORY]
        self.x.offer(options, metrics[0])
        self.y.offer(options, metrics[min(1, len(metrics) - 1)])

    def show(self, view: RunsView, selected: Sequence[int]) -> None:
        """Draw what is there."""
        self.scatter.show(compare.scatter_figure(view, self.x.value, self.y.value, selected))
        if view.metric is not None:
            self.parallel.show(compare.parallel_figure(view, view.metric, selected))
        self.knobs.show(knobs_page(view, selected))


def page_box(*children: Any) -> ipywidgets.VBox:
    """A page below the tabs."""
    box = ipywidgets.VBox(list(children))
    box.add_class("rf-page")
    return box


def tools_row(*children: Any) -> ipywidgets.HBox:
    """Controls side by side, on several lines where there is no room."""
    row = ipywidgets.HBox(list(children))
    row.add_class("rf-row")
    return row
