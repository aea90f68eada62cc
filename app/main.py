"""The script that Streamlit runs: page config, navigation, the frame around every page.

No page's content lives here.
"""

from __future__ import annotations

from types import ModuleType

import streamlit as st

from app import state
from app.parts import common, frame
from app.views import compare, hardware, home, live, plan, reports, tradeoffs, trial, trials

SECTIONS: dict[str, tuple[ModuleType, ...]] = {
    "": (home,),
    "Run": (plan, live),
    "Understand": (trials, compare, tradeoffs),
    "Keep": (reports, trial),
    "Machine": (hardware,),
}


def page_of(view: ModuleType) -> st.Page:
    """The page that a view module describes; its path is the module's name."""
    return st.Page(
        view.page,
        title=view.TITLE,
        icon=view.ICON,
        help=view.HELP,
        url_path=view.__name__.rpartition(".")[2],
        default=view is home,
        visibility="hidden" if view is trial else "visible",
    )


st.set_page_config(page_title="Trimtab", page_icon=frame.ICON, layout="wide")
st.html(frame.STYLE)
st.logo(frame.LOGO, icon_image=frame.ICON, size="large")
pages = {section: [page_of(view) for view in views] for section, views in SECTIONS.items()}
state.remember_pages([page for section in pages.values() for page in section])
chosen = st.navigation(pages)
with common.sentences():
    frame.sidebar(chosen.url_path)
    frame.message()
with common.sentences():
    chosen.run()
