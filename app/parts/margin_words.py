"""Whether a trial keeps the margins of its study, drawn as words with their sentences."""

from __future__ import annotations

import streamlit as st

from app import services
from app.parts import words
from core.margin import INFERIOR, NON_INFERIOR, UNDECIDED
from core.study import Trial
from core.verdict.documents import margins_kept

# icon and colour; the word itself always stands beside them
WORDS = {
    NON_INFERIOR: (":material/check_circle:", "green"),
    INFERIOR: (":material/cancel:", "red"),
    UNDECIDED: (":material/help:", "gray"),
}


def draw(trial: Trial) -> None:
    """A line for every margin of the trial's study; nothing when it has none."""
    study = services.get_services().store.study(trial.study_id)
    judged = margins_kept(trial, study.priorities.margins) if study is not None else ()
    if not judged:
        return
    st.header("Accepted loss of quality", anchor=False)
    for _, word, sentence in judged:
        icon, color = WORDS[word]
        st.markdown(f":{color}-badge[{icon} {word}] {words.plain(sentence)}")
