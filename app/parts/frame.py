"""What surrounds every page: the logo, the foot of the sidebar, the last page's last words."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import services, state
from app.parts import common, words

# A blade with its small flap turned: the flap is the trim tab.
_MARK = (
    '<rect width="32" height="32" rx="8" fill="#138089"/><path d="M7 11h13v9H7z" fill="#fff"/>'
    '<path d="M21.5 11.5l5.5 5-2.2 6.2-5.3-4z" fill="#f0c36b"/>'
)
_NAME = (
    '<text x="42" y="23.5" font-family="system-ui, sans-serif" font-size="22" font-weight="650" '
    'textLength="92" fill="#1f969f">Trimtab</text>'
)
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} 32">{}</svg>'
ICON = _SVG.format(32, _MARK)
LOGO = _SVG.format(140, _MARK + _NAME)

STYLE = Path(__file__).parent / "look.css"

# Sentences about damage on a page; the command line shows them all.
_NOTICES = 5


def sidebar(page: str) -> None:
    """The running studies and the store, below the navigation of `page`."""
    with st.sidebar:
        # Live has its own timer: two would only take time from what is being measured.
        st.fragment(_running, run_every=None if page == "live" else 3)()
        place = common.store_place()
        name = place.rpartition("/")[2] or "in memory only"
        st.caption(
            f":material/database: {words.plain(name)}",
            help=f"Everything is kept in {words.plain(place)}"
            if place
            else "Gone when the server ends",
        )


def _running() -> None:
    """A leaf that only reads: how many studies run now and how many wait."""
    with common.sentences():
        jobs = services.get_services().jobs
        active = jobs.active()
        if not active:
            st.badge("Nothing is running", icon=":material/pause_circle:", color="gray")
            return
        number = words.at_work(len(jobs.running()), len(active))
        st.badge(number, icon=":material/play_circle:", color="green")
        st.page_link(
            state.page("live"),
            label="Watch it",
            icon=":material/arrow_forward:",
            query_params=state.words(study=active[0]),
        )


def message() -> None:
    """Show what the page before wanted to say, once, and what was damaged when the store was
    opened.
    """
    notices = services.get_services().notices
    if notices:
        lines = [f"- {words.plain(notice)}" for notice in notices[:_NOTICES]]
        if len(notices) > _NOTICES:
            lines.append(f"- and {len(notices) - _NOTICES} more")
        lines.append("\n`trimtab doctor --check-store` reads everything again and lists them.")
        st.warning("\n".join(lines), icon=":material/heart_broken:")
    text = state.flashed()
    if text:
        st.toast(words.plain(text), icon=":material/check_circle:")
