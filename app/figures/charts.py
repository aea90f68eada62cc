"""Figures from plain data: trade-offs with the frontier, bars with intervals.

Computes no statistics: values, intervals, frontier and recommendation are given. Every point's
customdata is its trial's id. Stored text reaches a figure only through escape().
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import plotly.graph_objects as go

from app.figures.marks import (
    MARKS,
    Axis,
    ChartPoint,
    add_marks,
    errors,
    escape,
    hover,
    make_axis,
    points,
)
from app.figures.palette import Palette, palette, template
from core import format, metrics
from core.priorities import Limit
from core.verdict.comparison import Column, Row, machine_names

CONFIG: dict[str, Any] = {
    "showSendToCloud": False,
    "displaylogo": False,
    "displayModeBar": "hover",
    "responsive": True,
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"],
}
HEIGHT = 460
# Pixels of a bar, and of its row with the line above it.
BAR, ROW = 16, 58
__all__ = [
    "CONFIG",
    "HEIGHT",
    "ChartPoint",
    "bars",
    "errors",
    "escape",
    "pareto",
    "points",
    "template",
]


def pareto(
    shown: Sequence[ChartPoint],
    x: str,
    y: str,
    frontier: Collection[str] = (),
    baseline_id: str = "",
    recommended_id: str | None = None,
    limits: Sequence[Limit] = (),
    log_x: bool = False,
    log_y: bool = False,
    dark: bool = False,
) -> go.Figure:
    """Scatter of `y` over `x` with error bars, the frontier as a staircase, limits shaded.

    A logarithmic axis falls back to a linear one when a value is not above 0. Marks: filled is
    measured, hollow estimated, dotted projected, dashed diamond published; a square is the
    baseline, a ring the recommendation.
    """
    colors = palette(dark)
    across = make_axis(x, [(p.x, p.x_bounds) for p in shown], limits, log_x)
    up = make_axis(y, [(p.y, p.y_bounds) for p in shown], limits, log_y)
    figure = go.Figure()
    for limit in limits:
        for axis, name in ((across, "x"), (up, "y")):
            if limit.metric == axis.metric.name:
                _shade(figure, axis, name, limit, colors)
    _staircase(figure, [p for p in shown if p.trial_id in frontier], across, up, colors)
    for origin in MARKS:
        marked = [p for p in shown if p.origin == origin and p.trial_id != baseline_id]
        if marked:
            on = [p.trial_id in frontier for p in marked]
            ink = [colors.series[0] if best else colors.muted for best in on]
            add_marks(figure, marked, across, up, origin.capitalize(), MARKS[origin], ink, colors)
    base = [p for p in shown if p.trial_id == baseline_id]
    if base:
        mark = ("square" if base[0].origin == "measured" else "square-open", "solid")
        add_marks(figure, base, across, up, "Baseline", mark, [colors.ink], colors)
    chosen = [p for p in shown if p.trial_id == recommended_id]
    if chosen:
        _ring(figure, chosen[0], across, up, colors)
    figure.update_layout(
        template=template(dark), height=HEIGHT, xaxis=across.layout(), yaxis=up.layout()
    )
    return figure


def bars(row: Row, columns: Sequence[Column], dark: bool = False) -> go.Figure:
    """One bar per trial with its interval, the baseline's value as a line to compare with; trials
    of several machines are named with theirs.

    Name, number and verdict stand in a line of their own above each bar: no whisker crosses them,
    and a narrow screen has room for both.
    """
    colors = palette(dark)
    metric = metrics.metric(row.key)
    on = {key: f" · {name}" for key, name in machine_names(columns).items()}
    both = zip(row.cells, columns, strict=True)
    known = [(cell, column) for cell, column in both if cell.value is not None]
    largest = max((abs(cell.high or cell.value) for cell, _ in known), default=0.0)
    factor, suffix = format.scale(largest, metric.unit, metric.name)
    paint = {"better": colors.series[2], "worse": colors.series[1], "baseline": colors.ink}
    figure = go.Figure(
        go.Bar(
            orientation="h",
            x=[cell.value / factor for cell, _ in known],
            y=[cell.trial_id for cell, _ in known],
            customdata=[cell.trial_id for cell, _ in known],
            marker={
                "color": [paint.get(cell.verdict, colors.muted) for cell, _ in known],
                "pattern": {"shape": ["" if c.origin == "measured" else "/" for c, _ in known]},
            },
            error_x=errors(
                [
                    (c.value, None if c.low is None or c.high is None else (c.low, c.high))
                    for c, _ in known
                ],
                factor,
                colors,
            ),
            hovertext=[
                f"{escape(column.title + on.get(cell.trial_id, ''))}<br>"
                f"{cell.text} {cell.origin}, {cell.verdict}"
                for cell, column in known
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    base = next((cell for cell, column in known if column.is_baseline), None)
    if base is not None:
        at = base.value / factor
        for place in range(len(known)):
            # Beside the bars alone, so that it crosses no label either.
            figure.add_shape(
                type="line",
                x0=at,
                x1=at,
                y0=place - BAR / ROW / 2,
                y1=place + 0.32,
                line={"color": colors.ink, "width": 1, "dash": "dot"},
            )
    for cell, column in known:
        figure.add_annotation(
            x=0,
            y=cell.trial_id,
            text=f"{escape(column.title, 40)}{escape(on.get(cell.trial_id, ''), 40)}  "
            f"<b>{cell.text}</b> · {cell.verdict}",
            showarrow=False,
            xanchor="left",
            yanchor="bottom",
            yshift=BAR / 2,
        )
    unit = f" ({suffix.strip()})" if suffix.strip() else ""
    figure.update_layout(
        template=template(dark),
        height=90 + ROW * max(len(known), 1),
        showlegend=False,
        bargap=1 - BAR / ROW,
        margin={"l": 8},
        xaxis={
            "title": {"text": f"{metric.label}{unit} · {metric.better} is better"},
            "range": [0, largest / factor * 1.05 or 1.0],
        },
        yaxis={"autorange": "reversed", "showticklabels": False, "ticks": "", "showgrid": False},
    )
    return figure


def _staircase(
    figure: go.Figure, frontier: Sequence[ChartPoint], across: Axis, up: Axis, colors: Palette
) -> None:
    """Between two frontier points nothing better than the worse of both is known: a step."""
    if len(frontier) < 2:
        return
    ordered = sorted(frontier, key=lambda p: p.x)
    figure.add_trace(
        go.Scatter(
            x=[p.x / across.factor for p in ordered],
            y=[p.y / up.factor for p in ordered],
            mode="lines",
            name="Frontier",
            line={
                "color": colors.series[0],
                "width": 1.5,
                "shape": "hv" if across.metric.better == "lower" else "vh",
            },
            hoverinfo="skip",
        )
    )


def _shade(figure: go.Figure, axis: Axis, name: str, limit: Limit, colors: Palette) -> None:
    """Shade what a hard limit forbids, and draw the limit where it is in view."""
    above = limit.relation == "<="
    low = max(limit.value, axis.low) if above else axis.low
    high = axis.high if above else min(limit.value, axis.high)
    other = "y" if name == "x" else "x"
    if low < high:
        figure.add_shape(
            type="rect",
            layer="below",
            fillcolor=colors.forbidden,
            line={"width": 0},
            **{f"{name}ref": name, f"{name}0": low / axis.factor, f"{name}1": high / axis.factor},
            **{f"{other}ref": f"{other} domain", f"{other}0": 0, f"{other}1": 1},
        )
    if not axis.low < limit.value < axis.high:
        return
    at = limit.value / axis.factor
    figure.add_shape(
        type="line",
        line={"color": colors.series[1], "width": 1.2, "dash": "dash"},
        **{f"{name}ref": name, f"{name}0": at, f"{name}1": at},
        **{f"{other}ref": f"{other} domain", f"{other}0": 0, f"{other}1": 1},
    )
    relation = "≤" if above else "≥"
    text = f"limit {relation} {format.of_metric(limit.metric, limit.value)}"
    where: dict[str, Any] = {"x": math.log10(at) if axis.log else at, "y": 1, "yref": "y domain"}
    where |= {"xanchor": "left", "yanchor": "top"}
    if name == "y":
        where = {"y": math.log10(at) if axis.log else at, "x": 1, "xref": "x domain"}
        where |= {"xanchor": "right", "yanchor": "bottom"}
    figure.add_annotation(
        text=text, showarrow=False, font={"color": colors.series[1], "size": 12}, **where
    )


def _ring(figure: go.Figure, point: ChartPoint, across: Axis, up: Axis, colors: Palette) -> None:
    # The label leans towards the middle, so that the frame never cuts it.
    middle = math.sqrt(across.low * across.high) if across.log else (across.low + across.high) / 2
    left = point.x < middle
    figure.add_trace(
        go.Scatter(
            x=[point.x / across.factor],
            y=[point.y / up.factor],
            customdata=[point.trial_id],
            mode="markers+text",
            text=["recommended"],
            textposition="top right" if left else "top left",
            textfont={"color": colors.series[1], "size": 12},
            name="Recommended",
            marker={
                "symbol": "circle-open",
                "size": 21,
                "color": colors.series[1],
                "line": {"width": 2.2},
            },
            hovertext=[hover(point, across, up)],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
