"""The facts of an environment as tables in groups: on Hardware and on a trial. Not a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app.parts import words
from core import format
from core.machine.facts import LABELS, text_of

GROUPS = {
    "Processor": (
        "cpu", "cores", "cores_online", "affinity", "cpu_quota", "smt", "frequency_mhz",
        "frequency_min_mhz", "frequency_max_mhz", "governor", "scaling_driver", "boost", "flags",
        "caches", "numa_nodes", "temperature_c", "load_1m",
    ),
    "Memory": (
        "memory_bytes", "available_bytes", "memory_speed", "huge_pages", "huge_pages_reserved",
    ),
    "GPU": ("gpus", "driver"),
    "System": ("os", "distribution", "kernel", "architecture", "virtual", "container"),
    "Software": ("python", "versions", "compiler", "kernels", "threads", "torch_threads"),
}  # fmt: skip
# Words for facts that no two environments are compared by.
VOLATILE_LABELS = {
    "frequency_mhz": "clock now, MHz",
    "temperature_c": "hottest sensor, °C",
    "load_1m": "load of the last minute",
    "available_bytes": "free for a model",
    "torch_threads": "torch threads",
}
PLAIN_LABELS = {"versions": "packages", "threads": "thread settings", "kernels": "kernel builds"}


def table(facts: Mapping[str, Any]) -> None:
    """Every fact in groups; what the system does not tell is not listed."""
    left, right = st.columns(2, gap="medium")
    for position, (title, names) in enumerate(GROUPS.items()):
        shown = {
            f"**{words.plain(_label(name))}**": words.plain(_value(name, facts[name]))
            for name in names
            if name in facts
        }
        if shown:
            with left if position in (0, 1) else right:
                st.markdown(f"**{title}**")
                st.table(shown, border="horizontal", alt=f"{title} of this environment")


def _label(name: str) -> str:
    text = VOLATILE_LABELS.get(name) or PLAIN_LABELS.get(name) or LABELS.get(name)
    text = text or name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _value(name: str, value: Any) -> str:
    if name in ("memory_bytes", "available_bytes"):
        return format.number(float(value), "B")
    if name == "caches":
        return ", ".join(f"{level} {format.binary(size)}" for level, size in value.items())
    if name == "gpus":
        return "; ".join(text_of(gpu) for gpu in value)
    if name == "affinity":
        return _ranges(value)
    return text_of(value)


def _ranges(numbers: list[int]) -> str:
    """`0-3, 8` of [0, 1, 2, 3, 8]."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in ranges]
    return ", ".join(parts)
