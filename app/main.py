"""The script that Streamlit runs: page config, navigation, the frame around every page. No page's content lives here."""

from __future__ import annotations

import streamlit as st

from app import state
from app.views import common, compare, frame, home, live, plan, reports, tradeoffs, trial, trials

st.set_page_config(page_title="Trimtab", page_icon=":material/tune:", layout="wide")

PAGES = {
    "home": st.Page(
        home.page, title="Home", icon=":material/home:", url_path="home", default=True,
        help="What Trimtab does, the last studies, and the first study with one button.",
    ),
    "plan": st.Page(
        plan.page, title="Plan", icon=":material/edit_note:", url_path="plan",
        help="Choose model, target, workload and priorities; see what would be tried before it runs.",
    ),
    "live": st.Page(
        live.page, title="Live", icon=":material/monitor_heart:", url_path="live",
        help="Watch a study, and cancel, pause or resume it. It goes on when this tab is closed.",
    ),
    "trials": st.Page(
        trials.page, title="Trials", icon=":material/table_rows:", url_path="trials",
        help="Every trial ever stored, with filters. Select some to compare them.",
    ),
    "compare": st.Page(
        compare.page, title="Compare", icon=":material/compare_arrows:", url_path="compare",
        help="Trials side by side against a baseline, with intervals and verdicts.",
    ),
    "tradeoffs": st.Page(
        tradeoffs.page, title="Trade-offs", icon=":material/scatter_plot:", url_path="tradeoffs",
        help="The frontier of a study, and the trial that its priorities recommend.",
    ),
    "reports": st.Page(
        reports.page, title="Reports", icon=":material/description:", url_path="reports",
        help="Save a comparison as it is now, and take it away as HTML, Markdown, CSV or JSON.",
    ),
    "trial": st.Page(trial.page, title="Trial", icon=":material/science:", url_path="trial", visibility="hidden"),
}
SECTIONS = {"": ("home",), "Run": ("plan", "live"), "Understand": ("trials", "compare", "tradeoffs"),
            "Keep": ("reports", "trial")}

state.remember_pages(PAGES)
chosen = st.navigation({title: [PAGES[name] for name in names] for title, names in SECTIONS.items()})
with common.sentences():
    frame.sidebar()
    frame.message()
with common.sentences():
    chosen.run()
