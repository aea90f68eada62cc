"""How measurements of another machine come into this store: the commands for the study at hand, and
an upload of the journals that they leave. Not a page."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import streamlit as st

from app import services, state
from app.archives import unpack
from app.ingest import Ingested, ingest
from app.parts import common

UPLOAD_MB = 20


def draw(study_id: str | None) -> None:
    """Draw the place, closed until asked for. `study_id` is the study at hand, None when there is
    none."""
    with st.expander("Add measurements from another machine", icon=":material/lan:"):
        what = study_id or "--model pycode --workload chat"
        st.markdown(
            "A study can run on a machine without this dashboard, such as a rented GPU: it needs a "
            "checkout of Trimtab with torch, triton and transformers, no network and none of the "
            "dashboard's packages."
        )
        for text, command in (
            ("1. Here: write the plan to a file.", f"trimtab bundle {what} -o study.zip"),
            ("2. There: measure it.", "python -m core.measure.study study.zip results"),
            ("3. Here: take in what it left.", "trimtab ingest results"),
        ):
            st.caption(text)
            st.code(command, language="bash", wrap_lines=True)
        st.caption(
            "On an NVIDIA GPU, `OUT=results bash tests/evidence/gpu/run.sh` measures a fixed set "
            "of studies in 8 minutes, in the place of 1 and 2."
        )
        _upload()


def _upload() -> None:
    uploaded = st.file_uploader(
        "Or upload the journals (.tar.gz or .zip)",
        type=["gz", "zip"],
        key=state.selection_key("journals"),
        max_upload_size=UPLOAD_MB,
        help="The journals.tar.gz of run.sh, or the folder of results, packed. Each line is "
        "checked before it is taken; taking it in twice changes nothing.",
    )
    if uploaded is None:
        return
    with common.sentences():
        taken = _taken(uploaded.name, uploaded.getvalue())
        # What was taken would otherwise be taken again at every drawing.
        state.forget_selections("journals")
        state.flash(_said(taken))
        state.go("tradeoffs", study=taken.study_ids[0])


def _taken(name: str, content: bytes) -> Ingested:
    opened = services.get_services()
    with tempfile.TemporaryDirectory(prefix="trimtab-journals-") as folder:
        unpack(io.BytesIO(content), Path(folder), name)
        return ingest(opened.store, opened.folder, Path(folder), name)


def _said(taken: Ingested) -> str:
    count = len(taken.study_ids)
    where = f" from {'; '.join(taken.machines)}" if taken.machines else ""
    said = f"{count} {'study' if count == 1 else 'studies'} taken in{where}."
    return " ".join((said, *taken.notices[:3]))
