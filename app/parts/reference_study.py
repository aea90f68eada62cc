"""The reference study on Home: one click opens what was measured on a real GPU; until something
ships, one sentence says so and how to make it. Not a page."""

from __future__ import annotations

import streamlit as st

from app import services, state
from app.parts import common, words
from app.reference.package import NONE, WAY_OUT, Reference, ReferenceStudy, reference, take_in


def draw() -> None:
    """Draw the place; what is wrong with the package is a sentence in it."""
    st.header("Measured on a GPU", anchor=False)
    with common.sentences():
        shipped = reference()
        if shipped is None:
            _none()
        else:
            _offer(shipped)


def _none() -> None:
    st.caption(f"{NONE[:1].upper()}{NONE[1:]}; {WAY_OUT}.")


def _offer(shipped: Reference) -> None:
    with st.container(border=True):
        st.markdown(f":material/memory: Measured on an **{words.plain(shipped.line)}**")
        st.caption(
            "Opening one takes the journals that ship with Trimtab into your store, once; nothing "
            "is measured."
        )
        with st.container(horizontal=True):
            for study in shipped.studies:
                if st.button(
                    words.plain(study.title),
                    icon=":material/folder_open:",
                    key=f"reference-{study.id}",
                    help=f"{study.trials} measured trials",
                ):
                    _open(shipped, study)


def _open(shipped: Reference, study: ReferenceStudy) -> None:
    """Take the studies in, once, and show this one."""
    opened = services.get_services()
    taken = take_in(opened.store, opened.folder, shipped)
    if taken.notices:
        state.flash(" ".join(taken.notices))
    state.go("tradeoffs", study=study.id)
