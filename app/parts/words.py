"""How pages say things: escaped text, states, verdicts, numbers, times. Nothing is drawn here."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from core import format, metrics
from core.data.times import moment
from core.measurement import Measurement
from core.priorities import Limit
from core.study import ENDED, Trial
from core.verdict.comparison import MARKS as VERDICT_MARKS
from store.interface import StudySummary

# icon, colour of the badge; the word itself always stands beside them
STATES = {
    "queued": (":material/schedule:", "gray"),
    "running": (":material/play_circle:", "blue"),
    "paused": (":material/pause_circle:", "yellow"),
    "done": (":material/check_circle:", "green"),
    "failed": (":material/error:", "red"),
    "refused": (":material/block:", "orange"),
    "cancelled": (":material/cancel:", "gray"),
}
ACTIVE = ("queued", "running")
# Table cells draw no icons: a mark that needs no colour stands before the word.
MARKS = {
    "queued": "·",
    "running": "▸",
    "paused": "‖",
    "done": "✓",
    "failed": "✕",
    "refused": "⊘",
    "cancelled": "■",
}
# shape of the mark and the word: told apart without colour
VERDICTS = {word: f"{mark} {word}" for word, mark in VERDICT_MARKS.items()}
RELATIONS = {"<=": "at most", ">=": "at least"}
_SCALE = {"s": (1e-3, "ms"), "B": (1e6, "MB"), "J": (1e-3, "mJ"), "$": (1.0, "$")}
_FLAG = re.compile(r"^--[a-z][a-z-]*:? ?")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")


def plain(text: object) -> str:
    """Text from outside as Markdown that shows exactly it: no emphasis, link, image, colour,
    formula or HTML."""
    # The word joiner is invisible and keeps a bare address from becoming a link.
    shown = " ".join(str(text).split()).replace("://", ":\u2060//").replace("www.", "www\u2060.")
    return _MARKDOWN.sub(r"\\\1", shown)


def sentence(error: Exception) -> str:
    """What went wrong, without the command line's name of the input."""
    return _FLAG.sub("", str(error))


def badge(word: str) -> str:
    """A state as a Markdown badge with icon and word."""
    icon, color = STATES.get(word, (":material/help:", "gray"))
    return f":{color}-badge[{icon} {plain(word)}]"


def word(state_: str) -> str:
    """A trial's state for a table cell."""
    return f"{MARKS.get(state_, '?')} {state_}"


def ago(at: str) -> str:
    """`3 minutes ago` from a time; the text itself when it is none."""
    try:
        seconds = (datetime.now(UTC).replace(tzinfo=None) - moment(at)).total_seconds()
    except (ValueError, TypeError):
        return at
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {word}{'s' if count > 1 else ''} ago"
    return "just now"


def by(who: str) -> str:
    """` by Ada`, to stand behind a time; empty when nobody is known."""
    return f" by {who}" if who else ""


def summary_title(summary: StudySummary, place: str) -> str:
    """A study in words for a picker: `pycode on local, chat · 12 of 14 · done · 3 minutes ago`;
    `place` is where it ran."""
    if summary.state in ACTIVE:
        # Counts would be stale a moment later: the picker is not redrawn while a study runs.
        counted = f"{summary.trials} trials, in progress"
    else:
        counted = f"{summary.ended} of {summary.trials} trials · {summary.state}"
    return (
        f"{summary.model_id} on {place}, {summary.workload_id} · {counted} · "
        f"{ago(summary.created_at)}"
    )


def ended(trials: tuple[Trial, ...]) -> int:
    """How many of `trials` have ended."""
    return sum(trial.state in ENDED for trial in trials)


def at_work(running: int, active: int) -> str:
    """`1 running, 2 queued`: `active` counts both, and a queue of none is not named."""
    queued = active - running
    parts = [f"{running} running"] if running or not queued else []
    return ", ".join([*parts, f"{queued} queued"] if queued else parts)


def number(metric: str, value: float | None) -> str:
    """A metric's value for a table cell; an em dash where there is none."""
    return "—" if value is None else format.of_metric(metric, value)


def scaled(metric: str, value: float | None) -> float | None:
    """A metric's value in the unit of column(), at four significant digits, so that a table can
    sort it."""
    if value is None:
        return None
    return float(f"{value / _column_scale(metric)[0]:.4g}")


def column(metric: str) -> str:
    """A metric's heading with the unit of scaled()."""
    label, unit = metrics.metric(metric).label, _column_scale(metric)[1]
    return f"{label}, {unit}" if unit else label


def short_column(metric: str) -> str:
    """A narrow column's heading: `TTFT, ms`; the unit of a rate is in its short label."""
    entry, unit = metrics.metric(metric), _column_scale(metric)[1]
    named = entry.short or entry.label
    return f"{named}, {unit}" if unit and "/" not in unit else named


def _column_scale(metric: str) -> tuple[float, str]:
    """(factor, unit) of a whole column: one scale for all its numbers, so that it sorts."""
    unit = metrics.metric(metric).unit
    if unit in _SCALE:
        return _SCALE[unit]
    # Shares are percents; a rate says of what, because tokens and images may stand side by side.
    factor, suffix = format.scale(1.0, unit, metric)
    return factor, suffix.strip()


def reading(measurement: Measurement | None) -> str:
    """`12.3 ms (11.9 to 12.8)`, or why there is no number."""
    if measurement is None:
        return "—"
    if measurement.value is None:
        return "unavailable"
    low, high = measurement.interval() or (None, None)
    text = format.of_metric(measurement.metric, measurement.value)
    spread = format.interval(measurement.value, low, high, measurement.unit, measurement.metric)
    return f"{text} ({spread})" if spread and low != high else text


def origin(trial: Trial, *names: str) -> str:
    """The origins of these metrics in one cell; every one is named."""
    origins = dict.fromkeys(
        measurement.origin for name in names if (measurement := trial.metric(name)) is not None
    )
    return ", ".join(origins) or "—"


def limit_words(limit: Limit) -> str:
    """`KL to baseline at most 0.05 nat`."""
    value = format.of_metric(limit.metric, limit.value)
    return f"{metrics.metric(limit.metric).label} {RELATIONS[limit.relation]} {value}"


def measurement_row(measurement: Measurement) -> dict[str, str]:
    """A measurement as the first columns of a table."""
    low, high = measurement.interval() or (None, None)
    return {
        "Metric": metrics.metric(measurement.metric).label,
        "Value": number(measurement.metric, measurement.value)
        if measurement.value is not None
        else "unavailable",
        "95 % interval": format.interval(
            measurement.value, low, high, measurement.unit, measurement.metric
        )
        or "—",
        "n": str(measurement.n or "—"),
        "Origin": measurement.origin,
    }
