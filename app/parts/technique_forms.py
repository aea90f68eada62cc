"""The choice of techniques with their settings, on the page that plans a study.

Owns the inputs and their texts; what a technique does is core/techniques' business. In the URL a
technique's settings stand apart by semicolons, because commas part the techniques.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import state
from app.parts import common
from core import techniques as registry
from core.errors import BadInput
from core.plan import label, own_fields
from core.techniques import TECHNIQUES
from core.techniques.base import Base
from core.techniques.kinds import place

TITLES = {technique.name: technique.title for technique in TECHNIQUES}


def techniques() -> list[str]:
    """Chosen techniques as the command line writes them; none means the preset's own list."""
    ordered = sorted(TECHNIQUES, key=lambda kind: place(kind.kind))
    kinds = {item.name: item.kind for item in ordered}
    name = st.selectbox(
        "Technique",
        list(kinds),
        key="technique-name",
        format_func=lambda key: f"{kinds[key].capitalize()} · {TITLES[key]}",
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        settings = _settings(name)
        added = st.button("Add technique", icon=":material/add:", key="technique-add")
        chosen = list(state.chosen("techniques"))
        stacked = bool(chosen) and st.button(
            "Stack on the last",
            icon=":material/layers:",
            key="technique-stack",
            help=f"Measure it together with {_words(chosen[-1])}, as one plan.",
        )
    if added or stacked:
        with common.sentences():
            # A setting that cannot be is told at once, not by a trial.
            text = registry.spell(registry.build(name, settings)).replace(",", ";")
            registry.parse(_plain(text))
            kept = [*chosen, text] if added else [*chosen[:-1], f"{chosen[-1]}+{text}"]
            state.choose("techniques", list(dict.fromkeys(kept)))
            st.rerun()
    if not chosen:
        st.caption(
            "None chosen: the preset's own list. Chosen ones are tried alone and, where the order "
            "makes sense, together; a stack is tried as it is."
        )
        return []
    kept = common.removable(
        "Chosen techniques (click one to remove it)", "techniques", chosen, _words
    )
    return [_plain(text) for text in kept]


def _settings(name: str) -> dict[str, Any]:
    """One input for each field of the technique, its default filled in."""
    kind = registry.technique(name)
    types = registry.setting_types(name)
    values = {}
    for field in own_fields(kind):
        key = f"technique-{name}-{field.name}"
        title = field.name.replace("_", " ").capitalize()
        default: Any = field.default
        if field.name in kind.choices:
            options = list(kind.choices[field.name])
            values[field.name] = st.selectbox(
                title, options, index=options.index(default), key=key, width=150
            )
        elif types[field.name] in (int, float):
            values[field.name] = st.number_input(
                title,
                value=default,
                step=1 if types[field.name] is int else None,
                format=None if types[field.name] is int else "%g",
                key=key,
                width=150,
                help=_range(kind, field.name),
            )
        else:
            written = st.text_input(title, value=str(default or ""), key=key, width=150)
            values[field.name] = written or default
    return values


def _range(kind: type[Base], name: str) -> str | None:
    if name in kind.positive:
        return "Above 0."
    limits = kind.limits.get(name)
    return f"From {limits[0]} to {limits[1]}." if limits else None


def _plain(text: str) -> str:
    return text.replace(";", ",")


def _words(text: str) -> str:
    try:
        parts = registry.parse_stack(_plain(text))
        return " + ".join(label(registry.parse(part)) for part in parts)
    except BadInput:
        return text
