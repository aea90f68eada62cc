"""What surrounds every page: the foot of the sidebar and the sentence that the last page left behind."""

from __future__ import annotations

import streamlit as st

from app import services, state
from app.views import common


def sidebar() -> None:
    """The running studies and the store, below the navigation."""
    with st.sidebar:
        _running()
        st.caption(f":material/database: {common.plain(services.store_name())}", help="Where studies are kept.")


@st.fragment(run_every=3)
def _running() -> None:
    """A leaf that only reads: how many studies run now."""
    with common.sentences():
        running = services.get_services().jobs.running()
        if not running:
            st.badge("Nothing is running", icon=":material/pause_circle:", color="gray")
            return
        number = f"{len(running)} studies are running" if len(running) > 1 else "1 study is running"
        st.badge(number, icon=":material/play_circle:", color="green")
        st.page_link(
            state.page("live"), label="Watch it", icon=":material/arrow_forward:",
            query_params=state.words(study=running[0]),
        )


def message() -> None:
    """Show what the page before wanted to say, once."""
    text = state.flashed()
    if text:
        st.toast(common.plain(text), icon=":material/check_circle:")
