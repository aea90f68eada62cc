"""The script that Streamlit runs: the table of all pages, and the frame around each.

A new page is a file in app/views and its entry here. No page's content lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from app import state
from app.parts import common, frame
from app.views import compare, hardware, home, live, plan, reports, tradeoffs, trial, trials


@dataclass(frozen=True)
class Page:
    """`draw` draws it at the URL `path`; it stands under `section` in the navigation unless it is
    `hidden`. `parameters` are the words of its URL with their defaults (state.enter).
    """

    draw: Callable[[], None]
    path: str
    section: str
    title: str
    icon: str
    help: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    hidden: bool = False


# fmt: off
PAGES = (
    Page(home.page, "home", "", "Home", ":material/home:",
         "What Trimtab does, the last studies, and the first study with one button."),
    Page(plan.page, "plan", "Run", "Plan", ":material/edit_note:",
         "Choose model, target, workload and priorities; see what would be tried before it runs.",
         {"source": "catalogue", "model": "pycode", "path": "", "place": "local",
          "target": "local", "workload": None, "arrival": "", "weights": (), "limits": (),
          "margins": (), "data": (), "techniques": (), "preset": "quick"}),
    Page(live.page, "live", "Run", "Live", ":material/monitor_heart:",
         "Watch a study, cancel, pause or resume it. It goes on when this tab is closed.",
         {"study": None}),
    Page(trials.page, "trials", "Understand", "Trials", ":material/table_rows:",
         "Every trial ever stored, with filters. Select some to compare them.",
         {"trials": (), "in": "", "of": "", "on": "", "with": "", "state": (), "text": "",
          "columns": "overview", "page": 1}),
    Page(compare.page, "compare", "Understand", "Compare", ":material/compare_arrows:",
         "Trials side by side against a baseline, with intervals and verdicts.",
         {"study": None, "trials": (), "baseline": None, "differing": True, "search": "",
          "details": False, "bars": None}),
    Page(tradeoffs.page, "tradeoffs", "Understand", "Trade-offs", ":material/scatter_plot:",
         "The frontier of a study, and the trial that its priorities recommend.",
         {"study": None, "trials": (), "x": None, "y": None, "logx": False, "logy": False,
          "dominated": True, "methods": False}),
    Page(reports.page, "reports", "Keep", "Reports", ":material/description:",
         "Save a comparison as it is now; take it away as HTML, Markdown, CSV or JSON.",
         {"study": None, "trials": (), "baseline": None, "report": None}),
    Page(trial.page, "trial", "Keep", "Trial", ":material/science:",
         "Everything that is known of one trial.",
         {"trial": None, "rounds": None}, hidden=True),
    Page(hardware.page, "hardware", "Machine", "Hardware", ":material/memory:",
         "What this machine is and can do at most, beside the targets of the catalogue."),
)
# fmt: on


def run() -> None:
    """Draw the page that the URL names, inside its frame."""
    st.set_page_config(page_title="Trimtab", page_icon=frame.ICON, layout="wide")
    st.html(frame.STYLE)
    st.logo(frame.LOGO, icon_image=frame.ICON, size="large")
    sections: dict[str, list[st.Page]] = {}
    for page in PAGES:
        sections.setdefault(page.section, []).append(_navigable(page))
    state.remember_pages([page for section in sections.values() for page in section])
    chosen = st.navigation(sections)
    with common.sentences():
        frame.sidebar(chosen.url_path)
        frame.message()
    with common.sentences():
        chosen.run()


def _navigable(page: Page) -> st.Page:
    def draw() -> None:
        state.enter(page.path, page.parameters)
        page.draw()

    return st.Page(
        draw,
        title=page.title,
        icon=page.icon,
        help=page.help,
        url_path=page.path,
        default=page.path == state.HOME,
        visibility="hidden" if page.hidden else "visible",
    )


# The server imports this file for its pages; Streamlit runs it.
if __name__ == "__main__":
    run()
