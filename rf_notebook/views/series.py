"""Which points does a curve show?

Metric points as arrays, grown as they come, smoothed, and thinned for a screen.

Shape letters: P points of a run, V points of one metric, N points shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rf_notebook.core.metrics import headline
from rf_notebook.views.flat_configs import FlatConfigs

if TYPE_CHECKING:
    from rf_notebook.core.run import MetricPoint
    from rf_notebook.core.state import ExperimentState

Array = NDArray[np.float64]

#: Of one curve: what a chart as wide as a notebook shows.
USUAL_POINTS = 240
#: Whose curves are kept: a few charts, and what was looked at before.
_MOST_SETTINGS = 40
#: What the x axis can be, and the words for it.
X_AXES = {
    "samples": "samples",
    "step": "optimizer step",
    "epoch": "epoch",
    "wall time": "seconds since the start",
}


#: In the first array of a column. Runs log in step, so the next one's are a little larger: were they
#: alike, those of all runs would have to grow in the same update.
_FEWEST_PLACES = 64
_made = itertools.count()


class _Column:
    """An array that grows at its end."""

    def __init__(self, room: int) -> None:
        self._buffer = np.empty(room)
        self.length = 0

    def extend(self, values: Sequence[float]) -> None:
        end = self.length + len(values)
        if end > len(self._buffer):
            before, self._buffer = self.values, np.empty(2 * end)
            self._buffer[: self.length] = before
        self._buffer[self.length : end] = values
        self.length = end

    def pop(self) -> None:
        self.length -= 1

    @property
    def values(self) -> Array:
        return self._buffer[: self.length]


class RunSeries:
    """The points of one run as arrays; ``update`` takes in only what is new."""

    _columns: dict[str, _Column]
    _metrics: dict[str, tuple[_Column, _Column]]
    _groups: tuple[tuple[MetricPoint, ...], ...]
    _last: MetricPoint | None

    def __init__(self) -> None:
        self._room = _FEWEST_PLACES + next(_made) % _FEWEST_PLACES
        self.version = 0
        """Grows with every change."""
        self._newest: tuple[int, dict[str, float]] = (-1, {})
        self._best: dict[tuple[str, str], tuple[int, float | None]] = {}
        self._clear()

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that were logged."""
        return list(self._metrics)

    def column(self, x: str) -> Array:
        """What an x axis shows of every point: x_P."""
        return self._columns[x].values

    def update(
        self, groups: tuple[tuple[MetricPoint, ...], ...], live: Sequence[MetricPoint]
    ) -> None:
        """Take in the committed points, group by group, and those of the chunk in progress."""
        seen = len(self._groups)
        if len(groups) < seen or (seen and groups[seen - 1] is not self._groups[-1]):
            self._clear()
            seen = 0
        for group in groups[seen:]:
            self._take(group)
        self._groups = groups
        self._take(live)

    def xy(self, metric: str, x: str) -> tuple[Array, Array]:
        """The finite values of a metric.

        Returns:
            x_V and y_V; views that the next ``update`` may write beyond.
        """
        if metric not in self._metrics:
            return np.empty(0), np.empty(0)
        where, values = self._metrics[metric]
        y_V, x_P = values.values, self._columns[x].values
        # Most metrics are logged at every step.
        x_V = x_P if len(y_V) == len(x_P) else x_P[where.values.astype(np.int64)]
        finite = np.isfinite(y_V)
        return (x_V, y_V) if finite.all() else (x_V[finite], y_V[finite])

    def latest(self, metric: str) -> float | None:
        """The newest value, finite or not."""
        column = self._metrics.get(metric)
        return float(column[1].values[-1]) if column is not None and column[1].length else None

    @property
    def newest(self) -> Mapping[str, float]:
        """The newest value of each metric; not to be changed."""
        if self._newest[0] != self.version:
            values = {name: self.latest(name) for name in self._metrics}
            known = {name: value for name, value in values.items() if value is not None}
            self._newest = (self.version, known)
        return self._newest[1]

    def best(self, metric: str, mode: str) -> float | None:
        """The lowest (mode "min") or highest finite value."""
        held = self._best.get((metric, mode))
        if held is None or held[0] != self.version:
            y_V = self.xy(metric, "step")[1]
            found = None if not len(y_V) else float(y_V.min() if mode == "min" else y_V.max())
            held = self._best[metric, mode] = (self.version, found)
        return held[1]

    def _take(self, points: Sequence[MetricPoint]) -> None:
        fresh: list[MetricPoint] = []
        for index in range(_first_new(points, self._last), len(points)):
            point = points[index]
            if self._last is not None and point.step == self._last.step:
                if point is self._last or point.metrics == self._last.metrics:
                    continue
                if fresh:
                    fresh.pop()
                else:
                    self._drop_last()
            fresh.append(point)
            self._last = point
        if fresh:
            self._append(fresh)

    def _append(self, points: Sequence[MetricPoint]) -> None:
        first = self._columns["step"].length
        self._columns["samples"].extend([point.samples for point in points])
        self._columns["step"].extend([point.step for point in points])
        self._columns["epoch"].extend([point.epoch for point in points])
        self._columns["wall time"].extend([point.at for point in points])
        found: dict[str, tuple[list[float], list[float]]] = {}
        for at, point in enumerate(points, start=first):
            for metric, value in point.metrics.items():
                if metric not in found:
                    found[metric] = ([], [])
                found[metric][0].append(at)
                found[metric][1].append(value)
        for metric, (where, values) in found.items():
            if metric not in self._metrics:
                self._metrics[metric] = (_Column(self._room), _Column(self._room))
            self._metrics[metric][0].extend(where)
            self._metrics[metric][1].extend(values)
        self.version += 1

    def _drop_last(self) -> None:
        for column in self._columns.values():
            column.pop()
        at = self._columns["step"].length
        for where, values in self._metrics.values():
            if where.length and where.values[-1] == at:
                where.pop()
                values.pop()

    def _clear(self) -> None:
        self._columns = {name: _Column(self._room) for name in X_AXES}
        self._metrics = {}
        self._groups = ()
        self._last = None
        self.version += 1


def _first_new(points: Sequence[MetricPoint], last: MetricPoint | None) -> int:
    """Index of the first point that is not before the last one taken.

    Points come in the order of their steps.
    """
    if last is None:
        return 0
    low = len(points)
    while low > 0 and points[low - 1].step >= last.step:
        low -= 1
    return low


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSettings:
    """How curves are drawn."""

    metric: str
    x: str = "samples"
    smoothing: float = 0.0
    """0 to 0.99: weight of what came before in the exponential mean."""
    x_range: tuple[float, float] | None = None
    """What is zoomed to; None shows everything."""
    max_points: int = USUAL_POINTS
    """Shown of each run."""


class ExperimentSeries:
    """All runs' series, and their curves, computed again only when something changed."""

    def __init__(self) -> None:
        self.runs: dict[int, RunSeries] = {}
        self._started: float | None = None
        self._curves: dict[CurveSettings, dict[int, tuple[Any, tuple[Array, Array]]]] = {}
        self._methods: list[str] = []
        self.configs = FlatConfigs()
        self._drawn: dict[CurveSettings, dict[int, Any]] = {}

    def update(self, state: ExperimentState) -> None:
        """Take in what is new."""
        self._methods = sorted({record.config.method for record in list(state.runs.values())})
        for run_id, record in list(state.runs.items()):
            live = state.live.get(run_id)
            series = self.runs.get(run_id)
            if series is None:
                series = self.runs[run_id] = RunSeries()
            series.update(record.points, [] if live is None else list(live.points))
            if self._started is None:
                at_P = series.column("wall time")
                if len(at_P) and at_P[0] > 0:
                    self._started = float(at_P[0])

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics: headline metrics first, then losses, then by first appearance."""
        names = dict.fromkeys(
            name for series in list(self.runs.values()) for name in series.metrics
        )
        best = headline(self._methods, ())
        ranked = dict.fromkeys((f"eval_{best}", best, "eval_loss", "loss", "eval_reward", "reward"))
        first = [name for name in ranked if name in names]
        return [*first, *(name for name in names if name not in first)]

    @property
    def usual_metric(self) -> str | None:
        """What is looked at when no metric was chosen.

        The headline metric's evaluation as soon as a run has a curve of it.
        """
        best = headline(self._methods, ())
        for name in (f"eval_{best}", best):
            if any(len(series.xy(name, "step")[0]) > 1 for series in list(self.runs.values())):
                return name
        names = self.metrics
        return next((name for name in (best, "loss") if name in names), next(iter(names), None))

    def curve(self, run_id: int, settings: CurveSettings) -> tuple[Array, Array]:
        """The points to draw: x_N, y_N."""
        return self.curves([run_id], settings).get(run_id, (np.empty(0), np.empty(0)))

    def curves(
        self, run_ids: Iterable[int], settings: CurveSettings
    ) -> dict[int, tuple[Array, Array]]:
        """The points to draw of each run that has some; the same objects until they change."""
        if settings not in self._curves and len(self._curves) >= _MOST_SETTINGS:
            self._curves.clear()
            self._drawn.clear()
        known, found = self._curves.setdefault(settings, {}), {}
        for run_id in run_ids:
            series = self.runs.get(run_id)
            if series is None:
                continue
            key = (series.version, self._started)
            held = known.get(run_id)
            if held is None or held[0] != key:
                held = known[run_id] = (key, self._compute(series, settings))
            if len(held[1][0]):
                found[run_id] = held[1]
        return found

    def drawn(self, settings: CurveSettings) -> dict[int, Any]:
        """What ``views.curves`` has drawn of the curves of these settings, by run; kept with them."""
        return self._drawn.setdefault(settings, {})

    def mean(self, run_ids: Sequence[int], settings: CurveSettings) -> tuple[Array, Array, Array]:
        """The mean curve of several runs, of those that have come so far at each place.

        Args:
            run_ids: The runs.
            settings: Metric, x axis, smoothing and zoom.

        Returns:
            x_N, the means, and the standard deviations (0 where there is one run only).
        """
        curves = [self._whole(self.runs[one], settings) for one in run_ids if one in self.runs]
        curves = [(x_V, y_V) for x_V, y_V in curves if len(x_V)]
        if not curves:
            return np.empty(0), np.empty(0), np.empty(0)
        low = min(float(x_V[0]) for x_V, _ in curves)
        high = max(float(x_V[-1]) for x_V, _ in curves)
        if settings.x_range is not None:
            low, high = max(low, settings.x_range[0]), min(high, settings.x_range[1])
        edges_E = np.linspace(low, high, settings.max_points + 1)
        binned_RN = np.array([binned(x_V, y_V, edges_E) for x_V, y_V in curves])
        there_N = np.isfinite(binned_RN).sum(axis=0)
        some_N = there_N > 0
        binned_RN, there_N = binned_RN[:, some_N], there_N[some_N]
        mean_N = np.nansum(binned_RN, axis=0) / there_N
        squares_N = np.nansum((binned_RN - mean_N) ** 2, axis=0)
        deviation_N = np.sqrt(squares_N / np.maximum(there_N - 1, 1))
        return ((edges_E[:-1] + edges_E[1:]) / 2)[some_N], mean_N, deviation_N

    def x_at(self, run_id: int, samples: float, x: str) -> float:
        """Where on the x axis a run was when it had trained on this many samples."""
        x_P, samples_P = self.runs[run_id].column(x), self.runs[run_id].column("samples")
        if not len(x_P):
            return 0.0
        offset = (self._started or 0.0) if x == "wall time" else 0.0
        return float(np.interp(samples, samples_P, x_P)) - offset

    def _compute(self, series: RunSeries, settings: CurveSettings) -> tuple[Array, Array]:
        x_V, y_V = self._whole(series, settings)
        if settings.x_range is not None:
            x_V, y_V = within(x_V, y_V, *settings.x_range)
        return thinned(x_V, y_V, settings.max_points)

    def _whole(self, series: RunSeries, settings: CurveSettings) -> tuple[Array, Array]:
        x_V, y_V = series.xy(settings.metric, settings.x)
        if settings.x == "wall time":
            x_V = x_V - (self._started or 0.0)
        if settings.smoothing:
            y_V = smoothed(y_V, settings.smoothing)
        return x_V, y_V


def smoothed(y_V: Array, weight: float) -> Array:
    """The exponential mean, corrected for its start, so that a constant stays what it is.

    Source: TensorBoard's debiased smoothing, which is pandas' ``ewm(adjust=True)``.
    """
    import pandas as pd

    return np.asarray(pd.Series(y_V).ewm(alpha=1.0 - weight, adjust=True).mean(), dtype=np.float64)


def binned(x_V: Array, y_V: Array, edges_E: Array) -> Array:
    """The mean of a curve between each two edges: that of the line through its points.

    NaN where the curve has not begun, or is over.
    """
    width_N = np.diff(edges_E)
    if len(x_V) == 1 or not width_N.all():
        is_there = (edges_E[:-1] <= x_V[0]) & (x_V[0] <= edges_E[1:])
        return np.where(is_there, y_V[0], np.nan)
    area_V = np.concatenate([[0.0], np.cumsum(np.diff(x_V) * (y_V[1:] + y_V[:-1]) / 2)])
    low_N, high_N = np.maximum(edges_E[:-1], x_V[0]), np.minimum(edges_E[1:], x_V[-1])
    covered_N = high_N - low_N
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_N = (area_at(x_V, y_V, area_V, high_N) - area_at(x_V, y_V, area_V, low_N)) / covered_N
    return np.where(covered_N > 1e-9 * width_N, mean_N, np.nan)


def area_at(x_V: Array, y_V: Array, area_V: Array, at_N: Array) -> Array:
    """The area below the line through a curve's points, from its begin to each place."""
    place_N = np.clip(np.searchsorted(x_V, at_N, side="right") - 1, 0, len(x_V) - 1)
    y_N = np.interp(at_N, x_V, y_V)
    return area_V[place_N] + (at_N - x_V[place_N]) * (y_V[place_N] + y_N) / 2


def within(x_V: Array, y_V: Array, low: float, high: float) -> tuple[Array, Array]:
    """The points of a range, and one beyond each end, so that lines leave the view as they should."""
    inside = np.flatnonzero((x_V >= low) & (x_V <= high))
    if not len(inside):
        return x_V[:0], y_V[:0]
    part = slice(max(int(inside[0]) - 1, 0), int(inside[-1]) + 2)
    return x_V[part], y_V[part]


def thinned(x_V: Array, y_V: Array, limit: int) -> tuple[Array, Array]:
    """At most about ``limit`` points with every extreme kept.

    The lowest and the highest of each of limit/2 bins.

    The first and the last point are always among them.
    """
    count = len(x_V)
    if count <= limit:
        return x_V.copy(), y_V.copy()  # what is drawn stays when the series' last point changes
    bins = max((limit - 2) // 2, 1)
    width = -(-count // bins)
    whole = count // width  # bins that are full; the last one may not be
    rows, last_V = y_V[: whole * width].reshape(whole, width), y_V[whole * width :]
    starts = np.arange(whole) * width
    picked = [rows.argmin(axis=1) + starts, rows.argmax(axis=1) + starts]
    ends = [0, count - 1]
    if len(last_V):
        ends += [whole * width + int(last_V.argmin()), whole * width + int(last_V.argmax())]
    is_kept = np.zeros(count, bool)
    is_kept[np.concatenate([ends, *picked])] = True
    kept = np.flatnonzero(is_kept)
    return x_V[kept], y_V[kept]
