"""On the trial page: what the memory of a trial is made of, as one stacked bar and its table."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app.figures import charts
from app.figures.palette import palette, template
from app.parts import common
from core import format
from core.condition import Condition
from core.measurement import Measurement
from core.study import Trial

METRIC, LIBRARIES = "memory_bytes", "libraries"
NAMES = {"kv": "KV cache", "workspace": "Workspace", LIBRARIES: "Libraries"}


def draw(trial: Trial) -> None:
    """The section, where the parts were measured."""
    parts = [point for point in trial.curve(METRIC) if point.value is not None]
    if not parts:
        return
    st.header("Memory", anchor=False)
    st.plotly_chart(
        figure(parts, common.dark()),
        config=charts.CONFIG,
        theme=None,
        key="memory-chart",
        alt="Parts of the trial's memory, as in the table below",
    )
    total = sum(part.value or 0.0 for part in parts)
    rows = [
        {
            "Part": part_name(part.condition),
            "Bytes": f"{part.value:,.0f}",
            "Share": format.percent((part.value or 0.0) / total).lstrip("+") if total else "—",
            "Origin": part.origin,
            "How": part.method,
        }
        for part in parts
    ]
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, height="content", alt="Parts of the trial's memory"
    )


def part_name(part: Condition) -> str:
    """`Weights, bf16` of weights in that format."""
    name = str(part.value)
    return f"{name.capitalize()}, {part.format}" if part.format else NAMES.get(name, name)


def figure(parts: list[Measurement], dark: bool) -> go.Figure:
    """One bar of all parts, in their order."""
    colors = palette(dark)
    values = [part.value or 0.0 for part in parts]
    factor, suffix = format.scale(sum(values), "B", METRIC)
    chart = go.Figure()
    inks = iter([*colors.series, colors.whisker] * len(parts))
    for part, value in zip(parts, values, strict=True):
        # What any model costs here is hatched grey: most of the bar, and not the model's doing.
        ours = part.condition.value != LIBRARIES
        chart.add_trace(
            go.Bar(
                orientation="h",
                x=[value / factor],
                y=[""],
                name=charts.escape(part_name(part.condition)),
                marker={
                    "color": next(inks) if ours else colors.muted,
                    "pattern": {"shape": "" if ours else "/"},
                },
                hovertemplate=f"{charts.escape(part_name(part.condition))}: {value:,.0f} B"
                "<extra></extra>",
            )
        )
    chart.update_layout(
        template=template(dark),
        barmode="stack",
        height=150,
        legend={"traceorder": "normal"},
        xaxis={"title": {"text": suffix.strip()}},
        yaxis={"showgrid": False, "showticklabels": False},
    )
    return chart
