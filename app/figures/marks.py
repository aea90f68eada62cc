"""The pieces that figures are built from: points of trials, scaled axes, marks with error bars.

Every point's customdata is its trial's id. Stored text reaches a figure only through escape().
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from app.figures.palette import Palette
from core import format, metrics
from core.priorities import Limit
from core.study import Trial

Spread = tuple[float, tuple[float, float] | None]
# Told apart without colour: a filled mark was measured, every other one is hollow in its own way.
MARKS = {
    "measured": ("circle", None),
    "estimated": ("circle-open", "solid"),
    "projected": ("circle-open", "dot"),
    "published": ("diamond-open", "dash"),
}


@dataclass(frozen=True)
class ChartPoint:
    """A trial on two axes, in the metrics' own units; an interval's ends may be unknown."""

    trial_id: str
    title: str
    x: float
    y: float
    x_bounds: tuple[float, float] | None
    y_bounds: tuple[float, float] | None
    origin: str


@dataclass(frozen=True)
class Axis:
    """A metric drawn in one scale: divide by `factor`; `low` and `high` are what is shown."""

    metric: metrics.Metric
    factor: float
    log: bool
    low: float
    high: float

    @property
    def title(self) -> str:
        """Label, unit and the side that is better, in words."""
        unit = format.scale(self.factor, self.metric.unit, self.metric.name)[1].strip()
        named = f"{self.metric.label} ({unit})" if unit else self.metric.label
        return f"{named} · {self.metric.better} is better"

    def layout(self) -> dict[str, Any]:
        """Plotly's axis settings."""
        span = (self.low / self.factor, self.high / self.factor)
        if self.log:
            span = (math.log10(span[0]), math.log10(span[1]))
        return {
            "title": {"text": self.title},
            "type": "log" if self.log else "linear",
            "range": span,
        }


def escape(text: str, limit: int = 80) -> str:
    """Stored text for labels and hovers, where Plotly reads a few HTML tags."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return html.escape(shown, quote=True)


def points(trials: Sequence[Trial], x: str, y: str) -> tuple[ChartPoint, ...]:
    """The trials that have a value on both metrics; a mark is as solid as its weaker number."""
    weakest = ("published", "estimated", "projected", "measured")
    known = []
    for trial in trials:
        across, up = trial.metric(x), trial.metric(y)
        if across is None or up is None or across.value is None or up.value is None:
            continue
        origin = min(across.origin, up.origin, key=weakest.index)
        known.append(
            ChartPoint(
                trial.id,
                trial.plan.title,
                across.value,
                up.value,
                across.interval(),
                up.interval(),
                origin,
            )
        )
    return tuple(known)


def make_axis(
    name: str,
    values: Sequence[Spread],
    limits: Sequence[Limit],
    log: bool,
) -> Axis:
    """One scale for all values, with room around them and for a limit that lies near."""
    metric = metrics.metric(name)
    ends = [end for value, bounds in values for end in (value, *(bounds or ()))] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    log = log and min(value for value, _ in values or [(0.0, None)]) > 0
    if log:
        low = min(end for end in ends if end > 0)
        room = (high / low) ** 0.08 if high > low else 1.5
        near = [limit.value for limit in limits if limit.metric == name and limit.value > 0]
        low = min([low, *(value for value in near if value > low / room**8)])
        high = max([high, *(value for value in near if value < high * room**8)])
        low, high = low / room, high * room
    else:
        span = high - low or abs(high) or 1.0
        near = [
            limit.value
            for limit in limits
            if limit.metric == name and low - 0.8 * span < limit.value < high + 0.8 * span
        ]
        low, high = min([low, *near]), max([high, *near])
        room = 0.08 * (high - low or abs(high) or 1.0)
        low, high = low - room, high + room
    return Axis(
        metric, format.scale(max(abs(end) for end in ends), metric.unit, name)[0], log, low, high
    )


def add_marks(
    figure: go.Figure,
    shown: Sequence[ChartPoint],
    across: Axis,
    up: Axis,
    name: str,
    mark: tuple[str, str | None],
    ink: Sequence[str],
    colors: Palette,
    labels: Sequence[str] | None = None,
) -> None:
    """Add `shown` as one trace: `mark` is symbol and outline, `ink` a colour for each point."""
    symbol, dash = mark
    outline = {"width": 2.0, "dash": dash} if dash else {"width": 1.0, "color": colors.paper}
    figure.add_trace(
        go.Scatter(
            x=[p.x / across.factor for p in shown],
            y=[p.y / up.factor for p in shown],
            customdata=[p.trial_id for p in shown],
            mode="markers" if labels is None else "markers+text",
            text=labels,
            textposition="top left",
            name=name,
            marker={"symbol": symbol, "size": 12, "color": list(ink), "line": outline},
            error_x=errors([(p.x, p.x_bounds) for p in shown], across.factor, colors),
            error_y=errors([(p.y, p.y_bounds) for p in shown], up.factor, colors),
            hovertext=[hover(p, across, up) for p in shown],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )


def errors(values: Sequence[Spread], factor: float, colors: Palette) -> dict[str, Any]:
    """Plotly's error bars from values with bounds; unknown bounds draw none."""
    ends = [(value, bounds or (value, value)) for value, bounds in values]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(high - value, 0.0) / factor for value, (_, high) in ends],
        "arrayminus": [max(value - low, 0.0) / factor for value, (low, _) in ends],
        "color": colors.whisker,
        "thickness": 1.2,
        "width": 3,
    }


def hover(point: ChartPoint, across: Axis, up: Axis) -> str:
    """What a point tells: its title, both numbers with intervals, origin and id."""
    lines = [f"<b>{escape(point.title)}</b>"]
    for axis, value, bounds in ((across, point.x, point.x_bounds), (up, point.y, point.y_bounds)):
        metric = axis.metric
        low, high = bounds or (None, None)
        spread = format.interval(value, low, high, metric.unit, metric.name)
        text = format.number(value, metric.unit, metric.name)
        lines.append(f"{metric.label}: {text}" + (f" (95 %: {spread})" if spread else ""))
    return "<br>".join([*lines, f"{point.origin} · {escape(point.trial_id)}"])
