"""Reports: freeze a comparison with a title and a note, read it again, take it away as a file."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app import reports as exports
from app import services, state
from app.parts import pick, words
from core.report import Report

LABELS = {
    "html": ("HTML", ":material/html:"),
    "md": ("Markdown", ":material/markdown:"),
    "csv": ("CSV", ":material/csv:"),
    "json": ("JSON", ":material/data_object:"),
}
PREVIEW = 720


def page() -> None:
    """Draw the page."""
    st.title("Reports", anchor=False)
    saved = services.get_services().store.reports()
    wants_new = bool(state.chosen("trials")) and state.chosen("report") is None
    form = st.expander(
        "Save a comparison",
        icon=":material/save:",
        expanded=wants_new or not saved,
        on_change="rerun",
        key="new-report-open",
    )
    if form.open:
        with form:
            _new()
    if not saved:
        st.caption(
            "No report yet. A report keeps the numbers, the environment and your note as they are "
            "now: later runs never change it."
        )
        return
    _open(saved)


def _new() -> None:
    picked = pick.trials("reports")
    if picked is None:
        return
    study, trials, baseline_id = picked
    with st.form("new-report", border=False, enter_to_submit=False):
        title = st.text_input(
            "Title", key="report-title", max_chars=120, placeholder="What did you decide on?"
        )
        note = st.text_area(
            "Note",
            key="report-note",
            max_chars=4000,
            placeholder="Why, for whom, what is left open",
        )
        asked = st.form_submit_button(
            "Save the report", type="primary", icon=":material/save:", key="save-report"
        )
    if not asked:
        return
    report = pick.save(study, trials, baseline_id, title, note)
    state.choose("report", report.id)
    state.choose("trials", [])
    state.flash("The report was saved.")
    st.rerun()


def _open(saved: tuple[Report, ...]) -> None:
    known = {report.id: report for report in saved}
    wanted = state.chosen("report")
    if wanted is not None and wanted not in known:
        st.warning(
            f"There is no report {words.plain(wanted)} in this store: the newest one is shown.",
            icon=":material/search_off:",
        )
    ids = list(known)
    report_id = st.selectbox(
        "Report",
        ids,
        key=state.key("report", ids, ids[0]),
        format_func=lambda key: _title(known[key]),
    )
    if wanted is not None or report_id != ids[0]:
        state.keep("report", report_id)
    report = known[report_id]
    with st.container(horizontal=True, vertical_alignment="center"):
        for name, (label, icon) in LABELS.items():
            st.download_button(
                label,
                _exporter(report, name),
                exports.file_name(report, name),
                exports.MEDIA_TYPES[name],
                icon=icon,
                on_click="ignore",
                key=f"download-{name}",
            )
    st.iframe(
        _html(report.id, report.version, report),
        height=PREVIEW,
        alt=f"Preview of the report {report.title}",
    )


def _exporter(report: Report, name: str) -> Callable[[], bytes]:
    return lambda: exports.export(report, name)


@st.cache_resource(ttl=600, max_entries=8, show_spinner="Drawing the report")
def _html(report_id: str, version: int, _report: Report) -> str:
    """A saved version never changes, so its id and version are the whole key."""
    return exports.export(_report, "html").decode("utf-8")


def _title(report: Report) -> str:
    version = f" · version {report.version}" if report.version > 1 else ""
    when = words.ago(report.created_at)
    by = words.by(report.who)
    return f"{report.title}{version} · {len(report.trial_ids)} trials · {when}{by}"
