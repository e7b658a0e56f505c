"""The panel's two pages of charts: curves of one metric, and the comparison of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets

from rf_notebook.core.metrics import scale_of
from rf_notebook.views import compare
from rf_notebook.views.curves import Emphasis, curves_figure
from rf_notebook.views.document import element
from rf_notebook.views.series import X_AXES, CurveSettings, ExperimentSeries
from rf_notebook.widgets.elements import (
    Chart,
    Document,
    OwnSetting,
    button,
    reachable_while_busy,
    set_changed,
)

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.views.runs_table import RunsView

#: Runs of every kind.
_ALL = "all methods"


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
        self._is_chosen = False
        self._setting = OwnSetting()
        self._on_chosen = on_chosen
        self.widget.observe(self._changed, names="value")

    @property
    def value(self) -> str:
        """What is shown."""
        return str(self.widget.value)

    def offer(self, options: Sequence[str], usual: str) -> None:
        """Change what can be chosen; a choice that is still possible stays."""
        keep = self._is_chosen and self.widget.value in options
        with self._setting:
            set_changed(
                self.widget, options=list(options), value=self.widget.value if keep else usual
            )

    def _changed(self, _change: Any) -> None:
        if not self._setting.is_on:
            self._is_chosen = True
            self._on_chosen()


class CurvesPage:
    """Any metric against samples, steps, epochs or time; ``box`` is what is shown."""

    def __init__(self, on_change: Callable[[], None], on_click: Callable[[int], None]) -> None:
        """An empty chart.

        Args:
            on_change: Called when something is to be drawn otherwise.
            on_click: Called with the run whose curve was clicked.
        """
        self.metric = Choice("metric", ["loss"], on_change)
        self.x_axis = Choice("against", list(X_AXES), self._other_axis)
        self.smoothing = reachable_while_busy(
            ipywidgets.FloatSlider(
                description="smoothing",
                min=0.0,
                max=0.99,
                step=0.01,
                readout_format=".2f",
                layout={"width": "260px"},
            )
        )
        self.log_scale = reachable_while_busy(
            ipywidgets.Checkbox(description="log", indent=False, layout={"width": "max-content"})
        )
        self.whole = button("Show all", tooltip="leave the zoom")
        self.chart = reachable_while_busy(Chart(on_click=on_click))
        self.scale = Choice("runs of", [_ALL], on_change)
        self.scale.widget.layout.display = "none"
        self._note = Document()
        self._on_change = on_change
        controls = [
            self.metric.widget,
            self.x_axis.widget,
            self.smoothing,
            self.log_scale,
            self.whole,
        ]
        self.box = page_box(tools_row(*controls, self.scale.widget), self._note, self.chart)
        self.whole.on_click(lambda _button: set_changed(self.chart, zoom=[]))
        for control in (self.smoothing, self.log_scale):
            control.observe(lambda _change: on_change(), names="value")
        self.chart.observe(lambda _change: on_change(), names="zoom")

    def settings(self) -> CurveSettings:
        """How the curves are drawn at the moment."""
        zoom = self.chart.zoom
        return CurveSettings(
            metric=self.metric.value,
            x=self.x_axis.value,
            smoothing=self.smoothing.value,
            x_range=(zoom[0], zoom[1]) if len(zoom) == 2 else None,
        )

    def show(
        self, state: ExperimentState, series: ExperimentSeries, view: RunsView, emphasis: Emphasis
    ) -> None:
        """Draw what is there."""
        if view.metric is None:
            return
        self._offer_scales(view)
        if len(view.scales) > 1 and self.scale.value != _ALL:
            aside = {
                run_id
                for run_id, record in list(state.runs.items())
                if scale_of(record.config, view.metric) != self.scale.value
            }
            emphasis = replace(emphasis, hidden={*emphasis.hidden, *aside})
        log_scale = self.log_scale.value
        self.chart.show(
            curves_figure(state, series, self.settings(), log_scale=log_scale, emphasis=emphasis)
        )
        set_changed(
            self.chart, label=f"{view.metric} of {len(view.rows)} runs against {self.x_axis.value}"
        )

    def _offer_scales(self, view: RunsView) -> None:
        """Say where a metric does not mean the same in all runs, and let those be viewed apart."""
        several = len(view.scales) > 1
        set_changed(self.scale.widget.layout, display=None if several else "none")
        self.scale.offer([_ALL, *view.scales] if several else [_ALL], _ALL)
        words = f"{view.metric} of {', '.join(view.scales)} runs is on scales of their own: compare runs of one kind only."
        self._note.show(element("p", words, class_="rf-dim") if several else element("p"))

    def _other_axis(self) -> None:
        """The zoom was one of the axis before; leaving it draws anew."""
        if self.chart.zoom:
            self.chart.zoom = []
        else:
            self._on_change()


class ComparePage:
    """Two metrics against each other, and all knobs against the metric.

    ``box`` is what is shown.
    """

    def __init__(self, on_change: Callable[[], None], on_click: Callable[[int], None]) -> None:
        """Empty charts. See CurvesPage."""
        self.x = Choice("compare", [compare.MEMORY], on_change)
        self.y = Choice("with", [compare.MEMORY], on_change)
        self.scatter = reachable_while_busy(
            Chart(on_click=on_click, height=280, label="two metrics of each run")
        )
        self.parallel = reachable_while_busy(
            Chart(on_click=on_click, height=280, label="knobs of each run against the metric")
        )
        self.box = page_box(tools_row(self.x.widget, self.y.widget), self.scatter, self.parallel)

    def offer(self, metrics: Sequence[str]) -> None:
        """Change which metrics can be compared."""
        options = [*metrics, compare.MEMORY]
        self.x.offer(options, metrics[0])
        self.y.offer(options, metrics[min(1, len(metrics) - 1)])

    def show(self, view: RunsView, selected: Sequence[int]) -> None:
        """Draw what is there."""
        self.scatter.show(compare.scatter_figure(view, self.x.value, self.y.value, selected))
        if view.metric is not None:
            self.parallel.show(compare.parallel_figure(view, view.metric, selected))


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
