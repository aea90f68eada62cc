"""The inputs of the Plan page: model, target, workload, priorities, limits, techniques.

Each function draws one input, keeps it in the URL, and returns what was chosen.
"""

from __future__ import annotations

import streamlit as st

from app import state
from app.parts import common, tables, words
from core import format, metrics
from core.catalogue import models, workloads
from core.errors import BadInput
from core.machine import targets
from core.model import Model
from core.priorities import Priorities, parse_limit
from core.target import Target
from core.workload import Workload

PLACES = {
    "local": "This machine",
    "cloud": "Cloud",
    "desktop": "Desktop",
    "laptop": "Laptop",
    "phone": "Phone",
    "board": "Board",
    "sensor": "Sensor",
}
PRESETS = {
    "quick": "Quick: about a dozen trials, each just long enough for an interval.",
    "standard": "Standard: more settings of each technique, more repeats.",
    "deep": "Deep: the widest search and the longest repeats; leave it running.",
}
KINDS = {
    "bundled": "bundled",
    "shape": "random weights, speed and memory only",
    "folder": "local folder",
    "hub": "hub",
}


@st.cache_resource(ttl=60, max_entries=1, show_spinner=False)
def known_models() -> tuple[Model, ...]:
    """The catalogue of models."""
    return models.list_models()


@st.cache_resource(ttl=60, max_entries=1, show_spinner=False)
def known_targets() -> tuple[Target, ...]:
    """The catalogue of targets, this machine first."""
    return targets.list_targets()


@st.cache_resource(ttl=60, max_entries=8, show_spinner="Reading the model's files")
def _typed_model(model_id: str) -> Model:
    return models.resolve(model_id)


def model() -> Model | None:
    """A model of the catalogue, or one typed as a folder or hub id; None until one is given."""
    source = st.segmented_control(
        "Model from",
        ["catalogue", "path"],
        key=state.key("source", ["catalogue", "path"]),
        required=True,
        format_func={"catalogue": "Catalogue", "path": "Folder or hub"}.__getitem__,
        label_visibility="collapsed",
    )
    state.keep("source", source)
    if source == "path":
        path = st.text_input(
            "Folder in Hugging Face format, or hub id owner/name",
            key=state.key("path"),
            placeholder="/models/my-model or owner/name",
            help="safetensors only; nothing in a folder is executed. A hub id is downloaded once.",
        )
        state.keep("path", path)
        if not path:
            st.caption(
                "Press Enter to read the folder. The files are checked before anything is measured."
            )
            return None
        chosen = _typed_model(path)
    else:
        known = {model.id: model for model in known_models()}
        ids = list(known)
        model_id = st.selectbox(
            "Model",
            ids,
            key=state.key("model", ids, ids[0]),
            label_visibility="collapsed",
            format_func=lambda key: f"{key} · {KINDS[known[key].source]}",
        )
        state.keep("model", model_id)
        chosen = known[model_id]
    count = format.weights(chosen.params(), chosen.active_params())
    size = format.number(chosen.weight_bytes(), "B")
    st.caption(words.plain(f"{chosen.title or chosen.id}: {count}, {size} at {chosen.bits} bit."))
    if chosen.source == "shape":
        st.caption(
            ":material/info: Random weights in the published shape: quality will be unavailable."
        )
    return chosen


def target() -> Target:
    """Cards of the targets of one place; local is marked as measured, the others as projected."""
    known = known_targets()
    places = [place for place in PLACES if any(entry.place == place for entry in known)]
    place = st.segmented_control(
        "Place",
        places,
        key=state.key("place", places, places[0]),
        required=True,
        format_func=PLACES.__getitem__,
        label_visibility="collapsed",
    )
    state.keep("place", place)
    ids = [entry.id for entry in known if entry.place == place]
    target_id = state.chosen("target")
    if target_id not in ids:
        target_id = ids[0]
        state.choose("target", target_id)
    with st.grid(3, min_column_width=220, gap="small"):
        for entry in known:
            if entry.place == place:
                _target_card(entry, entry.id == target_id)
    return next(entry for entry in known if entry.id == target_id)


def _target_card(target: Target, chosen: bool) -> None:
    with st.container(border=True, height="stretch", gap="xsmall"):
        st.markdown(f"**{words.plain(target.title)}**")
        if target.local:
            st.badge("detected, really measured", icon=":material/check_circle:", color="green")
        else:
            st.badge("projected from this machine", icon=":material/trending_flat:", color="orange")
        facts = [f"{format.number(target.memory_bytes, 'B')} memory"]
        if target.bandwidth is not None:
            facts.append(f"{format.number(target.bandwidth, 'B')}/s")
        if target.power_w is not None:
            facts.append(f"{format.plain(target.power_w)} W")
        if target.usd_per_hour is not None:
            facts.append(f"${format.plain(target.usd_per_hour)}/h")
        st.caption(words.plain(" · ".join(facts)), help=words.plain(target.source) or None)
        st.space("stretch")
        st.button(
            "Chosen" if chosen else "Choose",
            key=f"target-{target.id}",
            disabled=chosen,
            width="stretch",
            icon=":material/check:" if chosen else None,
            on_click=state.choose,
            args=("target", target.id),
        )


def workload(task: str) -> Workload:
    """The workload presets that fit the model's task."""
    known = {
        workload.id: workload for workload in workloads.list_workloads() if workload.task == task
    }
    ids = list(known)
    chosen = st.selectbox(
        "Workload",
        ids,
        key=state.key("workload", ids, ids[0]),
        format_func=lambda key: known[key].title,
        label_visibility="collapsed",
    )
    state.keep("workload", chosen)
    choice = known[chosen]
    if task == "text":
        st.caption(
            f"{choice.prompt_tokens} prompt tokens, {choice.output_tokens} new tokens, "
            f"{choice.concurrency} at a time. {words.plain(choice.note)}"
        )
    else:
        st.caption(f"{choice.concurrency} at a time. {words.plain(choice.note)}")
    return choice


def arrival(workload: Workload) -> str:
    """Requests per second of a Poisson process as text; empty: only back to back."""
    if workload.task != "text":
        return ""
    text = st.text_input(
        "Requests per second, or a trace",
        key=state.key("arrival"),
        placeholder="back to back only",
        help="Also serve requests that arrive on their own, each waiting until a batch takes it: a"
        " number is a Poisson process, trace:FILE reads arrivals from a file on this machine."
        " Gives latency percentiles under load and the share within the workload's limits.",
        width=320,
    )
    return str(state.keep("arrival", text.strip()))


def weights() -> tuple[tuple[str, float], ...]:
    """One slider a priority word, 0 (do not care) to 3."""
    shares = dict(part.partition(":")[::2] for part in state.chosen("weights"))
    chosen: list[tuple[str, float]] = []
    with st.grid(2, min_column_width=150, gap="small"):
        for word, usual in Priorities().weights:
            key = state.part_key("weights", word, _weight(shares.get(word), usual))
            value = st.slider(word.capitalize(), 0.0, 3.0, step=0.5, key=key, format="%.1f")
            chosen.append((word, float(value)))
    changed = [
        f"{word}:{value:g}"
        for (word, value), (_, usual) in zip(chosen, Priorities().weights, strict=True)
        if value != usual
    ]
    state.keep("weights", changed)
    st.caption(
        "0 does not count. At equal weights, twice as fast is worth as much as half as large."
    )
    return tuple(chosen)


def _weight(text: str | None, usual: float) -> float:
    try:
        value = float(text) if text is not None else usual
    except ValueError:
        return usual
    return min(max(round(value * 2) / 2, 0.0), 3.0) if value == value else usual


def limits(task: str) -> list[str]:
    """Hard limits as metric, relation, value; each can be removed again."""
    names = [metric.name for metric in metrics.METRICS if metric.priority]
    name = st.selectbox(
        "Metric",
        names,
        key="limit-metric",
        format_func=lambda key: metrics.metric(key).label,
        index=names.index("kl_nats" if task == "text" else "accuracy"),
    )
    tables.explain(name)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        unit = metrics.metric(name).unit
        usual = "<=" if metrics.metric(name).better == "lower" else ">="
        relation = st.selectbox(
            "Relation",
            list(words.RELATIONS),
            index=list(words.RELATIONS).index(usual),
            width=110,
            key=f"limit-relation-{usual}",
            format_func=words.RELATIONS.__getitem__,
        )
        value = st.number_input(
            f"Value in {unit}" if unit else "Value",
            value=None,
            key="limit-value",
            format="%g",
            placeholder="0.05",
        )
        added = st.button("Add limit", icon=":material/add:", key="limit-add")
    chosen = list(state.chosen("limits"))
    if added:
        if value is None:
            st.caption(":material/info: Give the limit a value first.")
        else:
            chosen = [*chosen, str(parse_limit(f"{name}{relation}{value:g}"))]
            state.choose("limits", list(dict.fromkeys(chosen)))
            st.rerun()
    if not chosen:
        st.caption(
            "No hard limit. A trial that misses a limit, or whose value is unknown, is never "
            "recommended."
        )
        return []
    return common.removable("Hard limits (click one to remove it)", "limits", chosen, in_words)


def in_words(limit: str) -> str:
    """`KL to baseline at most 0.05 nat`; the text itself when it is no limit."""
    try:
        return words.limit_words(parse_limit(limit))
    except BadInput:
        return limit


def preset() -> str:
    """How thorough."""
    names = list(PRESETS)
    chosen = st.segmented_control(
        "Preset", names, key=state.key("preset", names), required=True, format_func=str.capitalize
    )
    chosen = state.keep("preset", chosen or names[0])
    st.caption(PRESETS[chosen])
    return chosen
