"""What several pages do alike: sentences for errors, empty states, the study picker, cached reads.

No page and no formula lives here; how things are said is in words.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import streamlit as st

from app import facts as unlike
from app import services, state, who
from app.parts import machines, words
from core.errors import TrimtabError
from core.study import Study, Trial
from core.verdict.anchor import anchored, at_own_baseline
from store.interface import StudySummary

logger = logging.getLogger(__name__)


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
        st.error(words.plain(words.sentence(error)), icon=":material/error:")
        return
    logger.error("a page failed", exc_info=error)
    st.error(
        "This page could not be drawn: the server's log says why. The other pages and everything "
        "stored are fine.",
        icon=":material/error:",
    )


def empty(
    title: str, text: str, label: str, page: str, icon: str = ":material/arrow_forward:"
) -> None:
    """An empty state: what is missing, what to do, and one primary action that opens `page`."""
    with st.container(border=True, horizontal_alignment="center", gap="small"):
        st.space("small")
        st.header(title, text_alignment="center", anchor=False)
        st.caption(text, text_alignment="center")
        if st.button(label, type="primary", icon=icon, key=f"empty-{page}"):
            state.go(page)
        st.space("small")


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
    known = {summary.id: summary for summary in studies()}
    if not known:
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
    if wanted is not None and wanted not in known:
        st.warning(
            f"There is no study {words.plain(wanted)} in this store: the newest one is shown.",
            icon=":material/search_off:",
        )
    ids = list(known)
    places = machines.places(tuple(known.values()))
    chosen = st.selectbox(
        "Study",
        ids,
        key=state.key("study", ids, ids[0]),
        format_func=lambda key: words.summary_title(known[key], places[key]),
        on_change=state.forget,
        args=("trials", "baseline"),
    )
    state.keep("study", chosen)
    return known[chosen]


def trials_of(ids: tuple[str, ...]) -> tuple[Trial, ...]:
    """The trials with these ids, in order; unknown ids are named in a warning and left out."""
    store = services.get_services().store
    trials: list[Trial] = []
    unknown: list[str] = []
    for trial_id in ids:
        trial = store.trial(trial_id)
        if trial is None:
            unknown.append(trial_id)
        else:
            trials.append(trial)
    if unknown:
        st.warning(
            f"Not in this store, so left out: {words.plain(', '.join(unknown[:5]))}.",
            icon=":material/search_off:",
        )
    return tuple(trials)


def at_baseline(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """The trials with their timed numbers at the pooled baseline of their studies."""
    store = services.get_services().store
    ids = dict.fromkeys(trial.study_id for trial in trials)
    studies = (store.study(study_id) for study_id in ids)
    return at_own_baseline(trials, [study for study in studies if study is not None])


def values_at_baseline(summary: StudySummary) -> dict[str, dict[str, float]]:
    """The known values of a study's trials by trial id and metric, timed ones at the study's pooled
    baseline; counted anew only when the summary changed."""
    store = services.get_services().store
    return _values(summary, id(store), store.study)


@st.cache_resource(ttl=600, max_entries=64, show_spinner=False)
def _values(
    summary: StudySummary, where: int, _read: Callable[[str], Study | None]
) -> dict[str, dict[str, float]]:
    study = _read(summary.id)
    return {
        trial.id: {
            measurement.metric: measurement.value
            for measurement in trial.measurements
            if measurement.value is not None and not measurement.condition
        }
        for trial in (anchored(study).trials if study is not None else ())
    }


def me() -> str:
    """Who looks at this page, as events say it; empty when nobody is known."""
    return who.of_request(st.context.headers)


def dark() -> bool:
    """Whether the browser shows the dark theme now."""
    return st.context.theme.type == "dark"


def environments(trials: tuple[Trial, ...]) -> tuple[tuple[str, str], ...]:
    """(id, JSON of the facts) of every environment that the trials ran in and the store knows."""
    store = services.get_services().store
    ids = dict.fromkeys(key for trial in trials for key in trial.environments)
    facts_by_id = ((key, store.environment(key)) for key in ids)
    return tuple(
        (key, json.dumps(facts, sort_keys=True)) for key, facts in facts_by_id if facts is not None
    )


def warn(trials: tuple[Trial, ...]) -> None:
    """Say what stands against comparing these trials: unlike environments, disturbed numbers."""
    caveats(unlike.warnings(services.get_services().store, trials))


def caveats(sentences: Sequence[str]) -> None:
    """One open yellow box, however many there are: the worse the data, the more must be seen."""
    if len(sentences) == 1:
        st.warning(words.plain(sentences[0]), icon=":material/warning:")
    elif sentences:
        lines = "\n".join(f"- {words.plain(sentence)}" for sentence in sentences)
        st.warning(lines, icon=":material/warning:")


def facts(text: str) -> dict[str, Any]:
    """The facts behind one entry of environments()."""
    return dict(json.loads(text))


def store_place() -> str:
    """The store's file or server, empty when it lives in memory only."""
    folder = str(services.get_services().folder)
    return folder.removesuffix(".studies") if folder.endswith(".studies") else ""


def removable(
    label: str, name: str, chosen: Sequence[str], in_words: Callable[[str], str]
) -> list[str]:
    """Chosen texts as pills, each of which a click takes out of the state's `name`."""
    kept: list[str] = st.pills(
        label,
        chosen,
        selection_mode="multi",
        key=state.key(name, chosen),
        format_func=in_words,
    )
    if len(kept) < len(chosen):
        state.choose(name, kept)
        st.rerun()
    return list(kept)
