"""The page of curves: charts that the user arranges, over one x axis and one zoom."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import ipywidgets

from rf_notebook.core.metrics import scale_of
from rf_notebook.views.arrangement import ChartArrangement
from rf_notebook.views.curves import Emphasis, curves_figure
from rf_notebook.views.document import element
from rf_notebook.views.series import USUAL_POINTS, X_AXES, CurveSettings, ExperimentSeries
from rf_notebook.widgets.chart import Chart
from rf_notebook.widgets.elements import (
    Document,
    OwnSetting,
    Slider,
    button,
    reachable_while_busy,
    set_changed,
)
from rf_notebook.widgets.figure_pages import Choice, page_box, tools_row

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.views.groups import Group
    from rf_notebook.views.runs_table import RunsView

#: Runs of every kind.
_ALL = "all methods"
_MOST_CHARTS = 12
#: Of all charts; where there are more, the charts take turns.
_CURVES_AN_UPDATE = 96
#: Pixels of a chart alone, and of one of several.
_HEIGHT, _LOWER_HEIGHT = 280, 220
#: Of all curves of all charts, so that an update in which every run has news stays small; and of
#: one curve.
_MOST_POINTS, _FEWEST_POINTS = 12_800, 40
_RANGE = re.compile(r"\s*(\S+)\s*(?:to|\.\.|,)\s*(\S+)\s*", re.IGNORECASE)


class CurveChart:
    """One metric; ``box`` is what is shown."""

    def __init__(
        self,
        on_change: Callable[[], None],
        on_click: Callable[[int], None],
        on_move: Callable[[CurveChart, int], None],
        on_remove: Callable[[CurveChart], None],
    ) -> None:
        """An empty chart.

        Args:
            on_change: Called when something is to be drawn otherwise.
            on_click: Called with the run whose curve was clicked.
            on_move: Called with this chart and -1 or 1.
            on_remove: Called with this chart.
        """
        self._setting = OwnSetting()
        self._on_change = on_change
        live = reachable_while_busy
        self.metric = Choice("metric", ["loss"], on_change)
        self.metric.widget.layout.max_width = "260px"
        self.smoothing = live(Slider(name="smoothing", max=0.99))
        self.log_scale = live(
            ipywidgets.Checkbox(description="log", indent=False, layout={"width": "max-content"})
        )
        self.y_range = live(
            ipywidgets.Text(
                description="y",
                placeholder="all",
                continuous_update=False,
                layout={"width": "130px"},
            )
        )
        self.y_range.tooltip = "lowest and highest value that is seen, as in 0.5 to 2"
        self.earlier = button("◂", tooltip="move this chart towards the first", class_="rf-mini")
        self.later = button("▸", tooltip="move this chart towards the last", class_="rf-mini")
        self.remove = button("✕", tooltip="remove this chart", class_="rf-mini")
        self.chart = live(Chart(on_click=on_click, hover_group="curves"))
        tools = tools_row(
            self.metric.widget,
            self.smoothing,
            self.log_scale,
            self.y_range,
            self.earlier,
            self.later,
            self.remove,
        )
        self.box = ipywidgets.VBox([tools, self.chart])
        self.box.add_class("rf-curves")
        for control in (self.smoothing, self.log_scale, self.y_range):
            control.observe(self._changed, names="value")
        self.earlier.on_click(lambda _button: on_move(self, -1))
        self.later.on_click(lambda _button: on_move(self, 1))
        self.remove.on_click(lambda _button: on_remove(self))

    def arrangement(self) -> ChartArrangement:
        """How it is set."""
        return ChartArrangement(
            metric=self.metric.value if self.metric.is_chosen else None,
            smoothing=self.smoothing.value,
            log=self.log_scale.value,
            y=self.seen,
        )

    def arrange(self, given: ChartArrangement) -> None:
        """Set it as it was."""
        with self._setting:
            self.metric.choose(given.metric)
            set_changed(self.smoothing, value=given.smoothing)
            set_changed(self.log_scale, value=given.log)
            words = "" if given.y is None else f"{given.y[0]:g} to {given.y[1]:g}"
            set_changed(self.y_range, value=words)

    @property
    def seen(self) -> tuple[float, float] | None:
        """Lowest and highest value that is seen; None for all, and for what is no range."""
        matched = _RANGE.fullmatch(self.y_range.value)
        try:
            low, high = map(float, matched.groups()) if matched else (0.0, 0.0)
        except ValueError:
            return None
        return (low, high) if low < high and abs(low) < 1e30 and abs(high) < 1e30 else None

    def _changed(self, _change: object) -> None:
        is_wrong = bool(self.y_range.value.strip()) and self.seen is None
        (self.y_range.add_class if is_wrong else self.y_range.remove_class)("rf-wrong")
        if not self._setting.is_on:
            self._on_change()


class CurvesPage:
    """Any metrics against samples, steps, epochs or time; ``box`` is what is shown."""

    def __init__(self, on_change: Callable[[], None], on_click: Callable[[int], None]) -> None:
        """One empty chart.

        Args:
            on_change: Called when something is to be drawn otherwise.
            on_click: Called with the run whose curve was clicked.
        """
        self._on_change, self._on_click = on_change, on_click
        self._setting = OwnSetting()
        self._next = 0
        """The chart whose turn is next."""
        self.is_behind = False
        """Whether charts wait for the next update."""
        self._offered: tuple[Sequence[str], str] = (["loss"], "loss")
        self.x_axis = Choice("against", list(X_AXES), self._other_axis)
        self.add = button("+ Chart", tooltip="one more chart, of another metric")
        self.whole = button("Show all", tooltip="leave the zoom")
        self.scale = Choice("runs of", [_ALL], on_change)
        self.scale.widget.layout.display = "none"
        self._note = Document()
        self.charts = [self._new_chart()]
        self._grid = ipywidgets.Box([])
        self._grid.add_class("rf-charts")
        self.box = page_box(
            tools_row(self.x_axis.widget, self.add, self.whole, self.scale.widget),
            self._note,
            self._grid,
        )
        self.whole.on_click(lambda _button: self._zoom_all([]))
        self.add.on_click(lambda _button: self._add())
        self._lay_out()

    @property
    def chart(self) -> Chart:
        """The first one."""
        return self.charts[0].chart

    @property
    def metric(self) -> Choice:
        """That of the first chart, by which the table tells who is best."""
        return self.charts[0].metric

    def arrangement(self) -> tuple[ChartArrangement, ...]:
        """How each chart is set."""
        return tuple(one.arrangement() for one in self.charts)

    def arrange(self, charts: Sequence[ChartArrangement], x: str) -> None:
        """Set everything as it was."""
        self.x_axis.choose(x)
        if tuple(charts) == self.arrangement():
            return
        self.charts = [self._new_chart() for _ in charts]
        for chart, given in zip(self.charts, charts, strict=True):
            chart.arrange(given)
        self._lay_out()

    def offer(self, metrics: Sequence[str], usual: str) -> None:
        """Change which metrics can be looked at, and which one is when none was chosen."""
        self._offered = (metrics, usual)
        for one in self.charts:
            one.metric.offer(metrics, usual)

    def show(
        self,
        state: ExperimentState,
        series: ExperimentSeries,
        view: RunsView,
        emphasis: Emphasis,
        groups: Sequence[Group] = (),
        *,
        in_turn: bool = False,
    ) -> None:
        """Draw what is there.

        Args:
            state: The experiment's state.
            series: Up to date.
            view: Of the runs that are shown.
            emphasis: What stands out.
            groups: Drawn as their means, in a band; runs by themselves when there are none.
            in_turn: Whether charts take turns where all of them together have too many curves.
        """
        self.is_behind = False
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
        for one in self._due(len(groups) or len(view.rows)) if in_turn else self.charts:
            one.chart.show(
                curves_figure(
                    state,
                    series,
                    self._settings(one, len(groups) or len(view.rows)),
                    log_scale=one.log_scale.value,
                    y_range=one.seen,
                    emphasis=emphasis,
                    groups=groups,
                )
            )
            words = f"{one.metric.value} of {len(view.rows)} runs against {self.x_axis.value}"
            set_changed(one.chart, label=words)

    def _due(self, curves: int) -> list[CurveChart]:
        """The charts whose turn it is, of so many curves each; the others wait for the next update."""
        count = max(1, _CURVES_AN_UPDATE // max(1, curves))
        if count >= len(self.charts):
            return self.charts
        begin = self._next if self._next < len(self.charts) else 0
        self._next = (begin + count) % len(self.charts)
        self.is_behind = self._next != 0
        return self.charts[begin : begin + count]

    def _settings(self, one: CurveChart, curves: int) -> CurveSettings:
        zoom = one.chart.zoom
        most = _MOST_POINTS // max(curves * len(self.charts), 1)
        return CurveSettings(
            metric=one.metric.value,
            x=self.x_axis.value,
            smoothing=one.smoothing.value,
            x_range=(zoom[0], zoom[1]) if len(zoom) == 2 else None,
            max_points=max(_FEWEST_POINTS, min(most, USUAL_POINTS)),
        )

    def _new_chart(self) -> CurveChart:
        made = CurveChart(self._on_change, self._on_click, self._move, self._remove)
        made.metric.offer(*self._offered)
        made.chart.observe(lambda change: self._zoom_all(change["new"]), names="zoom")
        return made

    def _lay_out(self) -> None:
        several = len(self.charts) > 1
        for place, one in enumerate(self.charts):
            set_changed(one.chart, height=_LOWER_HEIGHT if several else _HEIGHT)
            for control in (one.earlier, one.later, one.remove):
                set_changed(control.layout, display=None if several else "none")
            set_changed(one.earlier, disabled=place == 0)
            set_changed(one.later, disabled=place == len(self.charts) - 1)
        set_changed(self.add, disabled=len(self.charts) >= _MOST_CHARTS)
        self._grid.children = [one.box for one in self.charts]

    def _add(self) -> None:
        metrics, usual = self._offered
        seen = {one.metric.value for one in self.charts}
        made = self._new_chart()
        made.metric.choose(next((name for name in metrics if name not in seen), usual))
        made.chart.zoom = list(self.chart.zoom)
        self.charts.append(made)
        self._lay_out()
        self._on_change()

    def _remove(self, chart: CurveChart) -> None:
        self.charts.remove(chart)
        self._lay_out()
        self._on_change()

    def _move(self, chart: CurveChart, by: int) -> None:
        place = self.charts.index(chart)
        self.charts.insert(max(0, place + by), self.charts.pop(place))
        self._lay_out()
        self._on_change()

    def _zoom_all(self, zoom: Sequence[float]) -> None:
        """What one chart is zoomed to, all are."""
        if self._setting.is_on:
            return
        with self._setting:
            for one in self.charts:
                set_changed(one.chart, zoom=list(zoom))
        self._on_change()

    def _offer_scales(self, view: RunsView) -> None:
        """Say where a metric does not mean the same in all runs, and let those be viewed apart."""
        several = len(view.scales) > 1
        set_changed(self.scale.widget.layout, display=None if several else "none")
        self.scale.offer([_ALL, *view.scales] if several else [_ALL], _ALL)
        words = f"{view.metric} of {', '.join(view.scales)} runs is on scales of their own: compare runs of one kind only."
        self._note.show(element("span", words if several else "", class_="rf-dim"))

    def _other_axis(self) -> None:
        """The zoom was one of the axis before; leaving it draws anew."""
        self._zoom_all([])
