"""Trials: every stored trial in one table, filtered by the store, a page at a time. The selection
goes on to Compare."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import services, state
from app.parts import common, machines, other_machine, tables, words
from core import metrics
from core.ids import distinct
from core.study import TRIAL_STATES
from core.techniques import TECHNIQUES
from core.verdict import environments
from store.interface import StudySummary, TrialFilter

PAGE_SIZE = 50
PRESETS = ("overview", "speed", "size", "quality", "cost")
FILTERS = ("in", "of", "on", "with", "state", "text", "page")


def page() -> None:
    """Draw the page."""
    st.title("Trials", anchor=False)
    summaries = common.studies()
    if not summaries:
        common.empty(
            "No trial yet",
            "Trials appear here as soon as a study has started. Run the first study from "
            "Home, or plan your own.",
            "Plan a study",
            "plan",
            ":material/edit_note:",
        )
        other_machine.draw(None)
        return
    wanted = _filters(summaries)
    store = services.get_services().store
    total = store.count_trials(wanted)
    actions = st.container()
    if total == 0:
        with st.container(border=True, horizontal_alignment="center"):
            st.header("No trial fits these filters", anchor=False)
            st.button(
                "Clear the filters",
                type="primary",
                icon=":material/filter_alt_off:",
                key="clear",
                on_click=state.forget,
                args=FILTERS,
            )
        _actions(actions, list(state.chosen("trials")), 0)
        return
    pages = -(-total // PAGE_SIZE)
    number = min(max(state.chosen("page"), 1), pages)
    rows = _at_baseline(store.trial_rows(wanted, PAGE_SIZE, (number - 1) * PAGE_SIZE), summaries)
    chosen = _table(rows, number, wanted)
    if pages > 1:
        with st.container(horizontal_alignment="center"):
            turned = st.pagination(
                pages, default=number, key=state.selection_key("page", wanted, number)
            )
            if state.keep("page", turned) != number:
                st.rerun()
    _actions(actions, chosen, total)
    with actions:
        _unlike(rows, chosen)
    other_machine.draw(wanted.study_id or summaries[0].id)


def _at_baseline(
    rows: tuple[dict[str, Any], ...], studies: tuple[StudySummary, ...]
) -> tuple[dict[str, Any], ...]:
    """The rows with the numbers that every other page shows: timed ones at the pooled baseline of
    their study."""
    summaries = {summary.id: summary for summary in studies}
    shown = []
    for row in rows:
        summary = summaries.get(row["study_id"])
        known = common.values_at_baseline(summary).get(row["id"], {}) if summary else {}
        shown.append(row | {name: value for name, value in known.items() if name in row})
    return tuple(shown)


def _filters(studies: tuple[StudySummary, ...]) -> TrialFilter:
    """The filter row; every choice is in the URL."""
    places = machines.places(studies)
    titles = {"": "All studies"} | {
        summary.id: words.summary_title(summary, places[summary.id]) for summary in studies
    }
    everything = {"": "All"}
    of = everything | {summary.model_id: summary.model_id for summary in studies}
    on = everything | {summary.target_id: summary.target_id for summary in studies}
    using = everything | {kind.name: kind.title for kind in TECHNIQUES}
    with st.grid(4, min_column_width=160, gap="small"):
        text = state.keep(
            "text",
            st.text_input(
                "Search",
                key=state.key("text"),
                type="search",
                placeholder="Plan, reason or id",
                live="400ms",
            ),
        )
        model_id = _choice("Model", "of", of)
        target_id = _choice("Target", "on", on)
        technique = _choice("Technique", "with", using)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        study_id = _choice("Study", "in", titles)
        states = st.pills(
            "State",
            TRIAL_STATES,
            selection_mode="multi",
            key=state.key("state", TRIAL_STATES),
            format_func=words.word,
        )
        state.keep("state", states)
    wanted = TrialFilter(
        study_id or None,
        model_id or None,
        target_id or None,
        tuple(states),
        technique or None,
        text,
    )
    if state.changed("trials-filter", wanted):
        state.choose("page", 1)
    return wanted


def _choice(label: str, name: str, titles: dict[str, str]) -> str:
    ids = list(titles)
    chosen = st.selectbox(
        label, ids, key=state.key(name, ids, ""), format_func=lambda id_: titles[id_]
    )
    return state.keep(name, chosen)


def _table(rows: tuple[dict[str, Any], ...], number: int, wanted: TrialFilter) -> list[str]:
    """The table; returns the ids chosen on all pages."""
    presets = list(PRESETS)
    preset = st.segmented_control(
        "Columns",
        presets,
        key=state.key("columns", presets),
        required=True,
        format_func=str.capitalize,
        label_visibility="collapsed",
    )
    preset = state.keep("columns", preset or presets[0])
    columns = metrics.listed(f"trials_{preset}")
    shown = [name for name in columns if any(row.get(name) is not None for row in rows)]
    ids = [str(row["id"]) for row in rows]
    marks = machines.marks(services.get_services().store.environments_of(ids))
    before = state.chosen("trials")
    # On a phone there is room for three of the overview.
    phone = metrics.listed("trials_phone")
    few = [name for name in phone if name in shown] if preset == presets[0] else shown
    ticked = tables.draw(
        "trials",
        [_row(row, shown, marks) for row in rows],
        [_phone(row, few[:3], marks) for row in rows],
        "Stored trials that fit the filters",
        tables.help_of(shown, words.short_column)
        | {"Id": st.column_config.TextColumn(width="small")},
        min(35 * (len(rows) + 1) + 3, 640),
        [ids.index(item) for item in before if item in ids],
        (number, wanted, preset),
    )
    here = [ids[row] for row in ticked]
    chosen = [trial_id for trial_id in before if trial_id not in ids] + here
    state.keep("trials", chosen)
    return chosen


def _row(row: dict[str, Any], shown: list[str], marks: dict[str, str]) -> dict[str, Any]:
    numbers = tables.numbers(shown, row.get)
    return {
        "Plan": row["title"],
        "State": words.word(row["state"]),
        "Target": row["target_id"],
        **machines.column(marks, row["id"]),
        "Origin": _origin(row, shown),
        **numbers,
        "Model": row["model_id"],
        "Workload": row["workload_id"],
        "When": words.ago(row["created_at"]),
        "Reason": row["reason"],
        "Id": row["id"],
    }


def _phone(row: dict[str, Any], shown: list[str], marks: dict[str, str]) -> dict[str, Any]:
    mark = "" if row["state"] == "done" else f" {words.word(row['state'])}"
    if _origin(row, shown) not in ("measured", "—"):
        mark += f" ({_origin(row, shown)})"
    mark += machines.beside(marks, row["id"])
    return {"Plan": f"{row['title']}{mark}", **tables.numbers(shown, row.get)}


def _origin(row: dict[str, Any], shown: list[str]) -> str:
    """Where the shown numbers come from; every origin is named."""
    known = [row["origins"][name] for name in shown if row.get(name) is not None]
    return ", ".join(dict.fromkeys(known)) or "—"


def _actions(place: st.delta_generator.DeltaGenerator, chosen: list[str], total: int) -> None:
    """What can be done with the selection, above the table."""
    with place.container(horizontal=True, vertical_alignment="center"):
        counted = f"**{total:,}** trial{'s' if total != 1 else ''}"
        st.markdown(
            f"{counted}, **{len(chosen)}** selected"
            if chosen
            else f"{counted}. Tick rows to compare them.",
            width="stretch",
        )
        if chosen:
            st.button(
                "Clear selection",
                icon=":material/close:",
                key="unselect",
                type="tertiary",
                on_click=_unselect,
            )
            if len(chosen) == 1 and st.button("Details", icon=":material/science:", key="details"):
                state.go("trial", trial=chosen[0])
        if st.button(
            f"Compare {len(chosen) or ''}".strip(),
            type="primary",
            icon=":material/compare_arrows:",
            key="to-compare",
            disabled=len(chosen) < 2,
        ):
            state.go("compare", trials=chosen, study=_study_of(chosen[0]))
        if st.button(
            "Trade-offs", icon=":material/scatter_plot:", key="to-tradeoffs", disabled=not chosen
        ):
            state.go("tradeoffs", trials=chosen, study=_study_of(chosen[0]))


def _unlike(rows: tuple[dict[str, Any], ...], chosen: list[str]) -> None:
    """Say so when the ticked trials, or those in the table, ran in unlike environments."""
    store = services.get_services().store
    several = len(chosen) > 1
    titles = {str(row["id"]): str(row["title"]) for row in rows}
    ran = store.environments_of(chosen if several else list(titles))
    ids = set[str]().union(*ran.values())
    whose = "The ticked trials" if several else "The trials in this table"
    known = {key: store.environment(key) for key in sorted(ids)}
    # A ticked trial of another page of the table has its id alone.
    names = distinct({trial: titles.get(trial, trial) for trial in ran})
    by_name = {names[trial_id]: theirs for trial_id, theirs in ran.items()}
    common.caveats(environments.unlike(by_name, known, whose))


def _study_of(trial_id: str) -> str | None:
    trial = services.get_services().store.trial(trial_id)
    return trial.study_id if trial else None


def _unselect() -> None:
    state.forget("trials")
    tables.forget("trials")
