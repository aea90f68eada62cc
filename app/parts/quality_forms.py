"""The inputs of the Plan page about quality: the accepted loss, and the user's own data."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import services, state, uploads
from app.parts import common
from core import format, metrics
from core.data.files import read_dataset, refusal
from core.dataset import Dataset
from core.errors import BadInput
from core.margin import Margin, parse_margin
from core.model import Model

UNITS = ("%", "absolute")
KIND_WORDS = {
    "text": "text",
    "choices": "multiple choice",
    "answers": "questions with answers",
    "images": "images",
    "lm-eval": "lm-eval task",
}


def margins(task: str) -> list[str]:
    """Accepted losses as `metric=value`; each can be removed again."""
    st.markdown("**Accepted loss of quality**")
    names = metrics.listed(f"margin_{task}")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.selectbox(
            "Metric that may get worse",
            names,
            key=f"margin-metric-{task}",
            format_func=lambda key: metrics.metric(key).label,
        )
        value = st.number_input(
            "By at most",
            min_value=0.0,
            value=None,
            key="margin-value",
            format="%g",
            placeholder="1",
        )
        unit = st.selectbox(
            "Counted in",
            UNITS,
            key="margin-unit",
            width=140,
            format_func={"%": "% of baseline", "absolute": "its unit"}.__getitem__,
        )
        added = st.button("Add margin", icon=":material/add:", key="margin-add")
    chosen = list(state.chosen("margins"))
    if added:
        if value is None:
            st.caption(":material/info: Give the accepted loss a value first.")
        else:
            text = f"{name}={value:g}{'%' if unit == '%' else ''}"
            margin = parse_margin(text)
            others = [choice for choice in chosen if not choice.startswith(f"{margin.metric}=")]
            state.choose("margins", [*others, str(margin)])
            st.rerun()
    if not chosen:
        st.caption(
            "With a margin each trial is called non-inferior, inferior or undecided by the paired "
            "95 % interval against the unchanged model."
        )
        return []
    return common.removable("Accepted losses (click one to remove it)", "margins", chosen, in_words)


def in_words(text: str) -> str:
    """`Nats per byte: 1 % worse is accepted`; the text itself when it is no margin."""
    try:
        return margin_words(parse_margin(text))
    except BadInput:
        return text


def margin_words(margin: Margin) -> str:
    """`Accuracy: 1.00 pp worse is accepted`."""
    metric = metrics.metric(margin.metric)
    if margin.relative:
        allowed = f"{format.plain(margin.value * 100)} %"
    else:
        allowed = format.signed(margin.value, metric.unit, metric.name).lstrip("+")
    return f"{metric.label}: {allowed} worse is accepted"


def data(model: Model | None) -> tuple[str, ...]:
    """Paths of the user's uploaded files, each checked; none means the bundled held-out data."""
    folder = services.get_services().folder
    uploaded = st.file_uploader(
        "Your own data (.txt, .jsonl or .npz)",
        type=["txt", "jsonl", "npz"],
        accept_multiple_files=True,
        key=state.selection_key("upload"),
        help="Text in UTF-8; JSON lines with text, with prompt, choices and answer, or with prompt "
        "and answer; images as arrays pixels and labels. The files stay on this server, in the "
        "study's folder.",
    )
    chosen = list(state.chosen("data"))
    received: list[str] = []
    for file in uploaded or ():
        with common.sentences():
            received.append(_received(folder, file.name, file.getvalue(), model))
    if set(received) - set(chosen):
        chosen = list(dict.fromkeys([*chosen, *received]))
        state.choose("data", chosen)
        if len(received) == len(uploaded):
            # What was taken would otherwise come back as often as the user removes it.
            state.forget_selections("upload")
            st.rerun()
    known = {token: path for token in chosen if (path := uploads.find(folder, token)) is not None}
    read: dict[str, Dataset] = {}
    for token, path in known.items():
        with common.sentences():
            read[token] = _checked(str(path), model)
    if not read:
        st.caption("None: quality is judged on the bundled held-out data.")
        return ()
    kept = common.removable(
        "Data (click one to remove it)", "data", list(read), lambda key: data_words(read[key])
    )
    return tuple(str(known[token]) for token in kept)


def data_words(dataset: Dataset) -> str:
    """`arc.jsonl: multiple choice, 1,172 items`."""
    counted = f", {dataset.items:,} items" if dataset.kind != "text" or dataset.items > 1 else ""
    return f"{dataset.id}: {KIND_WORDS[dataset.kind]}{counted}"


def _received(folder: Path, name: str, content: bytes, model: Model | None) -> str:
    """The token of an upload that the model can be judged by; BadInput otherwise."""
    token = uploads.receive(folder, name, content)
    _checked(str(uploads.find(folder, token)), model)
    return token


def _checked(path: str, model: Model | None) -> Dataset:
    """The data set in a file; BadInput when it is not one, or not for this model."""
    dataset = read_dataset(path)
    reason = None if model is None else refusal(dataset, model)
    if reason is not None:
        raise BadInput(reason)
    return dataset
