"""On the trial page: the raw samples of a metric with the baseline's beside them, and what the
plan did under other conditions. Tables are the charts' twins.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import state
from app.figures import charts
from app.figures.palette import palette, template
from app.parts import common, tables, words
from core import format, metrics
from core.machine.watch import DISTURBED
from core.measurement import Measurement
from core.study import Trial
from core.verdict.against import served_at

# What a condition varies, as an axis.
VARIED = {
    "prompt_tokens": ("By prompt length", "Prompt tokens"),
    "concurrency": ("By concurrency", "Requests at a time"),
}


def draw(trial: Trial) -> None:
    """Both sections, each only where there is something to draw."""
    _samples(trial)
    for key, (title, axis) in VARIED.items():
        points = [point for point in trial.measurements if point.condition.name == key]
        if points:
            st.header(title, anchor=False)
            _curve(trial, key, axis, points)
    arrived = [
        measurement
        for measurement in trial.measurements
        if measurement.condition.name in ("rate", "trace")
    ]
    if arrived:
        st.header("Under load", anchor=False)
        st.caption(words.plain(f"{arrived[0].condition}: {arrived[0].method}."))
        st.dataframe(
            pd.DataFrame([words.measurement_row(point) for point in arrived]),
            hide_index=True,
            height="content",
            alt="What requests that arrive on their own met",
        )


def disturbed(trial: Trial, count: int) -> list[bool]:
    """Which of `count` samples were taken in a round whose threads waited for a core; all False
    where that is unknown or the samples are not one for every round."""
    waits = trial.metric("cpu_wait_share")
    if waits is None or waits.n != count:
        return [False] * count
    return [share > DISTURBED for share in waits.samples]


def _samples(trial: Trial) -> None:
    # The first of them is drawn until the user chooses.
    timed = metrics.listed("by_round")
    samples = {name: row for name in timed if (row := trial.metric(name)) and row.n > 2}
    if not samples:
        return
    st.header("Round by round", anchor=False)
    names = list(samples)
    name = st.selectbox(
        "Metric",
        names,
        key=state.key("rounds", names, names[0]),
        format_func=lambda key: metrics.metric(key).label,
        width=300,
    )
    state.keep("rounds", name)
    chosen = samples[name]
    st.plotly_chart(
        samples_figure(chosen, disturbed(trial, chosen.n), common.dark()),
        config=charts.CONFIG,
        theme=None,
        key="rounds-chart",
        alt=f"{metrics.metric(name).label} of every timed round, as in the table of numbers",
    )
    tables.explain(name)
    if chosen.reference:
        st.caption("Squares are the unchanged model, measured in turns in the same process.")


def samples_figure(measurement: Measurement, marked: Sequence[bool], dark: bool) -> go.Figure:
    """Every sample in the order it was taken; disturbed rounds are hollow, none is left out."""
    colors = palette(dark)
    metric = metrics.metric(measurement.metric)
    factor, suffix = format.scale(max(map(abs, measurement.samples)), metric.unit, metric.name)
    figure = go.Figure()
    if measurement.reference:
        figure.add_trace(
            go.Scatter(
                x=list(range(1, len(measurement.reference) + 1)),
                y=[value / factor for value in measurement.reference],
                mode="markers",
                name="Unchanged model",
                marker={"symbol": "square", "size": 7, "color": colors.muted},
            )
        )
    for flag, name, symbol in ((False, "This trial", "circle"), (True, "Disturbed", "circle-open")):
        at = [i for i, mark in enumerate(marked) if mark is flag]
        if at:
            figure.add_trace(
                go.Scatter(
                    x=[i + 1 for i in at],
                    y=[measurement.samples[i] / factor for i in at],
                    mode="markers",
                    name=name,
                    marker={
                        "symbol": symbol,
                        "size": 9,
                        "color": colors.series[1 if flag else 0],
                        "line": {"width": 2},
                    },
                )
            )
    unit = f" ({suffix.strip()})" if suffix.strip() else ""
    figure.update_layout(
        template=template(dark),
        height=300,
        showlegend=True,
        xaxis={"title": {"text": "Round"}},
        yaxis={"title": {"text": f"{metric.label}{unit}"}, "rangemode": "tozero"},
    )
    return figure


def _curve(trial: Trial, key: str, axis: str, points: Sequence[Measurement]) -> None:
    """One chart a metric, the workload's own point included, and the table."""
    own = {
        "prompt_tokens": trial.plan.case.workload.prompt_tokens,
        "concurrency": served_at(trial),
    }[key]
    names = list(dict.fromkeys(point.metric for point in points))
    for column, name in zip(st.columns(len(names)), names, strict=True):
        shown = [(int(point.condition.value), point) for point in points if point.metric == name]
        here = trial.metric(name)
        if here is not None:
            shown.append((own, here))
        shown.sort(key=lambda pair: pair[0])
        with column:
            st.plotly_chart(
                curve_figure(name, axis, shown, common.dark()),
                config=charts.CONFIG,
                theme=None,
                key=f"curve-{key}-{name}",
                alt=f"{metrics.metric(name).label} by {axis.lower()}, as in the table below",
            )
    st.dataframe(
        pd.DataFrame(
            [{axis: str(point.condition.value), **words.measurement_row(point)} for point in points]
        ),
        hide_index=True,
        height="content",
        alt=f"Numbers by {axis.lower()}",
    )


def curve_figure(
    name: str, axis: str, shown: Sequence[tuple[int, Measurement]], dark: bool
) -> go.Figure:
    """A metric over a varied condition with its intervals."""
    colors = palette(dark)
    metric = metrics.metric(name)
    values = [point.value or 0.0 for _, point in shown]
    factor, suffix = format.scale(max(map(abs, values)), metric.unit, metric.name)
    figure = go.Figure(
        go.Scatter(
            x=[at for at, _ in shown],
            y=[value / factor for value in values],
            error_y=charts.errors(
                [
                    (value, point.interval())
                    for value, (_, point) in zip(values, shown, strict=True)
                ],
                factor,
                colors,
            ),
            mode="lines+markers",
            line={"color": colors.series[0], "width": 1.5},
            marker={"size": 8},
        )
    )
    unit = f" ({suffix.strip()})" if suffix.strip() else ""
    figure.update_layout(
        template=template(dark),
        height=300,
        showlegend=False,
        xaxis={
            "title": {"text": axis},
            "type": "log",
            "tickvals": [at for at, _ in shown],
            "ticktext": [str(at) for at, _ in shown],
        },
        yaxis={"title": {"text": f"{metric.label}{unit}"}, "rangemode": "tozero"},
    )
    return figure
