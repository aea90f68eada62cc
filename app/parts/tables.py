"""Tables of plans that show their numbers at every width: a wide form, whose plan column stays in
place, and a phone's form with the plan and a few short columns. look.css shows one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from app import state
from app.parts import words
from core import metrics

# Pixels. Longer names are read in full by a click on their cell; on a phone they wrap, which
# Streamlit does in rows above 60 pixels.
PLAN = 230
PHONE_PLAN, PHONE_COLUMN, PHONE_ROW = 118, 70, 64
WIDE, PHONE = "wide", "phone"

Cells = Mapping[str, Any]


def draw(
    name: str,
    rows: Sequence[Cells],
    phone: Sequence[Cells],
    alt: str,
    columns: Mapping[str, Any] | None = None,
    height: Any = "content",
    ticked: Sequence[int] | None = None,
    context: Sequence[object] = (),
) -> list[int]:
    """Draw `rows` and, for narrow screens, `phone`: as many rows, each with its `Plan` first.

    `columns` configures the wide form's columns. With `ticked` rows can be ticked, these are at
    first, and the numbers of those that are ticked are returned; ticks in one form show in the
    other. They start anew when `context` changes.
    """
    config = {"Plan": st.column_config.TextColumn(width=PLAN, pinned=True), **(columns or {})}
    short = {
        column: st.column_config.Column(width=PHONE_COLUMN) for column in (phone or [{}])[0]
    } | {"Plan": st.column_config.TextColumn(width=PHONE_PLAN)}
    forms: dict[str, dict[str, Any]] = {
        WIDE: {"data": pd.DataFrame(rows), "column_config": config, "height": height},
        PHONE: {
            # Before its settings is the one place where a plan's name can be broken.
            "data": pd.DataFrame(
                [{**row, "Plan": str(row["Plan"]).replace("(", " (")} for row in phone]
            ),
            "column_config": short,
            "height": "content" if len(phone) < 12 else 560,
            "row_height": PHONE_ROW,
        },
    }
    used = state.form(name, WIDE)
    other = PHONE if used == WIDE else WIDE
    with st.container(key=f"{used}-{name}"):
        kept = _form(name, used, forms[used], alt, ticked, context)
    with st.container(key=f"{other}-{name}"):
        # What was ticked where the user is shows in the other form too.
        _form(name, other, forms[other], alt, kept if ticked is not None else None, context)
    return kept


def _form(
    name: str,
    form: str,
    drawn: dict[str, Any],
    alt: str,
    ticked: Sequence[int] | None,
    context: Sequence[object],
) -> list[int]:
    if ticked is None:
        st.dataframe(**drawn, hide_index=True, alt=alt, placeholder="—")
        return []
    other = PHONE if form == WIDE else WIDE
    event = st.dataframe(
        **drawn,
        hide_index=True,
        alt=alt,
        placeholder="—",
        on_select=partial(state.use_form, name, form, f"{name}-{other}"),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": list(ticked)}},
        key=state.selection_key(f"{name}-{form}", *context),
    )
    return [row for row in event["selection"]["rows"] if row < len(drawn["data"])]


def forget(name: str) -> None:
    """Untick every row of both forms (a callback)."""
    for form in (WIDE, PHONE):
        state.forget_selections(f"{name}-{form}")


def numbers(names: Sequence[str], value: Callable[[str], float | None]) -> dict[str, float | None]:
    """Narrow columns of metrics: values that sort, under short headings with their unit."""
    return {words.short_column(name): words.scaled(name, value(name)) for name in names}


def help_of(names: Sequence[str], heading: Callable[[str], str]) -> dict[str, Any]:
    """Column settings that explain metrics: `heading` makes a column's name of a metric's."""
    columns = {}
    for name in names:
        metric = metrics.metric(name)
        columns[heading(name)] = st.column_config.Column(help=f"{metric.label}. {metric.meaning}")
    return columns


def explain(*names: str) -> None:
    """Say what these metrics mean, under their chart or their picker."""
    for name in dict.fromkeys(names):
        metric = metrics.metric(name)
        st.caption(words.plain(f"{metric.label}: {metric.meaning}"))
