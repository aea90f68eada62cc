"""How a report says things: dates, limits, intervals, changes, verdicts; and the notes on method.

Texts that come from the store pass through unchanged: each format escapes them.
"""

from __future__ import annotations

from datetime import datetime

from core import format, metrics
from core.compare import Cell, Row
from core.priorities import Limit

MARKS = {
    "better": "▲",
    "worse": "▼",
    "same": "=",
    "within noise": "≈",
    "too few runs": "?",
    "not comparable": "–",
    "baseline": "●",
}
METHOD_NOTES = (
    "Every number names its origin: measured on the target, estimated before any run, projected "
    "from measurements on another machine, or published by others. Unavailable means that nothing "
    "could be read.",
    "A number with raw samples is their median, its interval the percentile bootstrap of that "
    "median (95 %, 2,000 draws). Pooled and projected numbers state their own 95 % interval.",
    "A difference is called better or worse only when the 95 % interval of the ratio to the "
    "baseline excludes 1, else it is within noise. The ratio's interval is a bootstrap of both "
    "sides' samples, or combines both stated intervals (MOVER, Zou & Donner 2008), which is "
    "cautious: what both numbers share is not subtracted.",
    "Fewer than three samples allow no interval: too few runs. With three to five the bootstrap "
    "interval is narrower than 95 %; judge such verdicts with care.",
    "Numbers of different origin, of models with different tasks, and perplexities of different "
    "tokenizers are not compared.",
)


def when(at: str) -> str:
    """`21 November 2026, 09:58 UTC` from a naive UTC time; the text itself when it is not one."""
    try:
        time = datetime.fromisoformat(at)
    except ValueError:
        return at
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def in_words(limit: Limit) -> str:
    """`KL to baseline ≤ 0.1 nat` from a limit."""
    relation = "≤" if limit.relation == "<=" else "≥"
    metric = metrics.metric(limit.metric)
    return f"{metric.label} {relation} {format.of_metric(metric.name, limit.value)}"


def spread(cell: Cell, row: Row) -> str:
    """`2.47 to 2.55`, the cell's interval; empty when there is none or it has no width."""
    if cell.low == cell.high:
        return ""
    return format.interval(cell.value, cell.low, cell.high, row.unit, row.key)


def change(cell: Cell, row: Row) -> str:
    """`−41.9 % · 0.58x (0.57 to 0.59)`; the plain difference where no ratio exists."""
    if cell.delta is None:
        return ""
    if cell.change is None or cell.ratio is None or row.key in ("top1_agreement", "accuracy"):
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
