"""What several pages draw alike: escaped text, states, empty states, numbers, cached reads.

No page and no formula lives here.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from app import services, state
from core import format, metrics
from core.compare import Column, environment_ids
from core.errors import TrimtabError
from core.measurement import Measurement
from core.study import ENDED, Study, Trial
from store.interface import StudySummary

logger = logging.getLogger(__name__)

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
# shape of the mark and the word: told apart without colour
VERDICTS = {
    "better": "▲ better",
    "worse": "▼ worse",
    "same": "= same",
    "within noise": "≈ within noise",
    "too few runs": "? too few runs",
    "not comparable": "– not comparable",
    "baseline": "● baseline",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")


def plain(text: object) -> str:
    """Text from outside as Markdown that shows exactly it: no emphasis, link, image, colour,
    formula or HTML."""
    # The word joiner is invisible and keeps a bare address from becoming a link.
    shown = " ".join(str(text).split()).replace("://", ":\u2060//").replace("www.", "www\u2060.")
    return _MARKDOWN.sub(r"\\\1", shown)


@contextmanager
def sentences() -> Iterator[None]:
    """Show what went wrong as one sentence; a surprise goes to the log and the page stays up."""
    try:
        yield
    except Exception as error:
        explain(error)


def explain(error: Exception) -> None:
    """The sentence of a TrimtabError; for anything else a general one, and the traceback in the
    log."""
    if isinstance(error, TrimtabError):
        st.error(plain(error), icon=":material/error:")
        return
    logger.error("a page failed", exc_info=error)
    st.error(
        "This page could not be drawn: the server's log says why. The other pages and everything "
        "stored are fine.",
        icon=":material/error:",
    )


def badge(word: str) -> str:
    """A state as a Markdown badge with icon and word."""
    icon, color = STATES.get(word, (":material/help:", "gray"))
    return f":{color}-badge[{icon} {plain(word)}]"


def empty(
    title: str, text: str, label: str, page: str, icon: str = ":material/arrow_forward:"
) -> None:
    """An empty state: what is missing, what to do, and one primary action that opens `page`."""
    with st.container(border=True, horizontal_alignment="center", gap="small"):
        st.space("small")
        st.subheader(title, text_alignment="center", anchor=False)
        st.caption(text, text_alignment="center")
        if st.button(label, type="primary", icon=icon, key=f"empty-{page}"):
            state.go(page)
        st.space("small")


def ago(at: str) -> str:
    """`3 minutes ago` from a naive UTC time; the text itself when it is not one."""
    try:
        seconds = (
            datetime.now(UTC).replace(tzinfo=None) - datetime.fromisoformat(at)
        ).total_seconds()
    except (ValueError, TypeError):
        return at
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {word}{'s' if count > 1 else ''} ago"
    return "just now"


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


def summary_title(summary: StudySummary) -> str:
    """A study in words for a picker: `pycode on local, chat · 12 of 14 · done · 3 minutes ago`."""
    if summary.state in ACTIVE:
        # Counts would be stale a moment later: the picker is not redrawn while a study runs.
        counted = f"{summary.trials} trials, in progress"
    else:
        counted = f"{summary.ended} of {summary.trials} trials · {summary.state}"
    return (
        f"{summary.model_id} on {summary.target_id}, {summary.workload_id} · {counted} · "
        f"{ago(summary.created_at)}"
    )


def studies() -> tuple[StudySummary, ...]:
    """The newest studies."""
    return services.get_services().store.studies(100)


def study_of(summary: StudySummary) -> Study | None:
    """The whole study behind a summary, read again only when the summary changed or two seconds
    passed."""
    store = services.get_services().store
    return _study(summary, id(store), store.study)


@st.cache_resource(ttl=2, max_entries=16, show_spinner=False)
def _study(summary: StudySummary, where: int, _read: Callable[[str], Study | None]) -> Study | None:
    return _read(summary.id)


def pick_study(need: str = "") -> StudySummary | None:
    """The study picker, kept in the URL; None with an empty state when there is no study."""
    found = {summary.id: summary for summary in studies()}
    if not found:
        empty(
            "No study yet",
            f"{need}Plan one, or run the first study from Home."
            if need
            else "Run the first study from Home, or plan your own.",
            "Plan a study",
            "plan",
            ":material/edit_note:",
        )
        return None
    wanted = state.chosen("study")
    if wanted is not None and wanted not in found:
        st.warning(
            f"There is no study {plain(wanted)} in this store: the newest one is shown.",
            icon=":material/search_off:",
        )
    ids = list(found)
    chosen = st.selectbox(
        "Study",
        ids,
        key=state.key("study", ids, ids[0]),
        format_func=lambda one: summary_title(found[one]),
        on_change=state.forget,
        args=("trials", "baseline"),
    )
    state.keep("study", chosen)
    return found[chosen]


def ended(trials: tuple[Trial, ...]) -> int:
    """How many of `trials` have ended."""
    return sum(trial.state in ENDED for trial in trials)


def trials_of(ids: tuple[str, ...]) -> tuple[Trial, ...]:
    """The trials with these ids, in order; unknown ids are named in a warning and left out."""
    store = services.get_services().store
    found: list[Trial] = []
    unknown: list[str] = []
    for trial_id in ids:
        trial = store.trial(trial_id)
        if trial is None:
            unknown.append(trial_id)
        else:
            found.append(trial)
    if unknown:
        st.warning(
            f"Not in this store, so left out: {plain(', '.join(unknown[:5]))}.",
            icon=":material/search_off:",
        )
    return tuple(found)


def number(metric: str, value: float | None) -> str:
    """A metric's value for a table cell; an em dash where there is none."""
    return "—" if value is None else format.of_metric(metric, value)


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


def word(state_: str) -> str:
    """A trial's state for a table cell."""
    return f"{MARKS.get(state_, '?')} {state_}"


def scaled(metric: str, value: float | None) -> float | None:
    """A metric's value in the unit of column(), at four significant digits, so that a table can
    sort it."""
    if value is None:
        return None
    return float(f"{value / _SCALE.get(metrics.metric(metric).unit, (1.0, ''))[0]:.4g}")


def column(metric: str) -> str:
    """A metric's heading with the unit of scaled()."""
    found = metrics.metric(metric)
    unit = _SCALE.get(found.unit, (1.0, found.unit))[1]
    return f"{found.label}, {unit}" if unit else found.label


_SCALE = {"s": (1e-3, "ms"), "B": (1e6, "MB"), "J": (1e-3, "mJ")}


def origin(trial: Trial, *names: str) -> str:
    """The origins of these metrics in one cell; every one is named."""
    found = dict.fromkeys(one.origin for name in names if (one := trial.metric(name)) is not None)
    return ", ".join(found) or "—"


def dark() -> bool:
    """Whether the browser shows the dark theme now."""
    return st.context.theme.type == "dark"


def environments(trials: tuple[Trial, ...]) -> tuple[tuple[str, str], ...]:
    """(id, JSON of the facts) of every environment that the trials ran in and the store knows."""
    store = services.get_services().store
    ids = dict.fromkeys(one for trial in trials for one in environment_ids(trial))
    found = ((one, store.environment(one)) for one in ids)
    return tuple(
        (one, json.dumps(facts, sort_keys=True)) for one, facts in found if facts is not None
    )


def facts(text: str) -> dict[str, Any]:
    """The facts behind one entry of environments()."""
    return dict(json.loads(text))


def headings(columns: tuple[Column, ...]) -> list[str]:
    """Column headings that stay distinct: the plan's title, numbered where two are alike."""
    found: list[str] = []
    for one in columns:
        name = plain(one.title)
        if one.is_baseline and one.title != "baseline":
            name += " :gray-badge[baseline]"
        found.append(name if name not in found else f"{name} :small[:gray[{plain(one.trial_id)}]]")
    return found


def store_place() -> str:
    """The store's file or server, empty when it lives in memory only."""
    folder = str(services.get_services().folder)
    return folder.removesuffix(".studies") if folder.endswith(".studies") else ""
