"""How a report says things: dates, limits, intervals, changes, verdicts; and the notes on method.

Texts that come from the store pass through unchanged: each format escapes them.
"""

from __future__ import annotations

from core import format, metrics
from core.data.times import moment
from core.priorities import Limit
from core.verdict.comparison import MARKS, Cell, Column, Row


def when(at: str) -> str:
    """`21 November 2026, 09:58 UTC` from a time; the text itself when it is none."""
    try:
        time = moment(at)
    except ValueError:
        return at
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def in_words(limit: Limit) -> str:
    """`KL to baseline ≤ 0.1 nat` from a limit."""
    relation = "≤" if limit.relation == "<=" else "≥"
    metric = metrics.metric(limit.metric)
    return f"{metric.label} {relation} {format.of_metric(metric.name, limit.value)}"


def heading(column: Column) -> str:
    """A column's plan, and whether the others are compared with it: `weight-int8 (baseline)`."""
    named = column.is_baseline and column.title != "baseline"
    return f"{column.title} (baseline)" if named else column.title


def spread(cell: Cell, row: Row) -> str:
    """`2.47 to 2.55`, the cell's interval; empty when there is none or it has no width."""
    if cell.low == cell.high:
        return ""
    return format.interval(cell.value, cell.low, cell.high, row.unit, row.key)


def change(cell: Cell, row: Row) -> str:
    """`−41.9 % · 0.58x (0.57 to 0.59)`; the plain difference where no ratio exists."""
    if cell.delta is None:
        return ""
    if cell.change is None or cell.ratio is None or metrics.metric(row.key).is_share:
        return format.signed(cell.delta, row.unit, row.key)
    text = f"{format.percent(cell.change)} · {format.ratio(cell.ratio)}"
    if cell.ratio_low is None or cell.ratio_low == cell.ratio_high:
        return text
    return f"{text} ({format.plain(cell.ratio_low)} to {format.plain(cell.ratio_high)})"


def source(cell: Cell) -> str:
    """`measured, n 20`: the origin and how many samples stand behind it."""
    if not cell.origin:
        return ""
    return f"{cell.origin}, n {cell.n}" if cell.n > 1 else cell.origin


def verdict(cell: Cell) -> str:
    """Mark and word, told apart without colour: `▲ better`."""
    return f"{MARKS[cell.verdict]} {cell.verdict}" if cell.verdict else ""
