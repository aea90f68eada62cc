"""The catalogue of targets, read from targets.toml and checked.

Every number carries its source; what nobody states is left out and stays None. `local`, the machine
that this runs on, is core.machine.targets'.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.catalogue import classes, tables
from core.errors import BadInput
from core.target import Target

FILE = tables.FOLDER / "targets.toml"
LOCAL = "local"
KINDS = ("cuda", "cpu", "mcu")
PLACES = ("cloud", "laptop", "desktop", "phone", "board", "sensor")
FORMATS = ("fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8", "int4")
_NUMBERS = ("memory_bytes", "flash_bytes", "bandwidth", "power_w", "usd_per_hour", "clock_hz")
_FIELDS = ("id", "title", "kind", "place", "class", "note", "peaks", *_NUMBERS)


@dataclass(frozen=True)
class Fact:
    """A number of a device with where it comes from."""

    value: float
    source: str


@dataclass(frozen=True)
class Entry:
    """A device of the catalogue: the Target that studies carry, and the facts behind it by name.

    Facts are memory_bytes, bandwidth, peak_<format>, power_w, usd_per_hour, flash_bytes and, for
    microcontrollers, clock_hz. `device_class` is its class or core in classes.toml, "" where none
    is named.
    """

    target: Target
    facts: tuple[tuple[str, Fact], ...]
    device_class: str = ""

    def fact(self, name: str) -> Fact | None:
        """The fact called `name`, or None when the catalogue does not know it."""
        return dict(self.facts).get(name)


def entry(target_id: str) -> Entry | None:
    """The catalogue's entry with all facts; None for `local` and for unknown ids."""
    return next((item for item in entries() if item.target.id == target_id), None)


@functools.lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """Every device of the catalogue, read once."""
    return load(FILE)


def load(path: Path) -> tuple[Entry, ...]:
    """Read and check a catalogue of targets; BadInput names the target and the field."""
    document = tables.read(path)
    tables.only(document, ("dated", "sources", "target"), path.name)
    dated = tables.text(document, "dated", path.name)
    sources = document.get("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(text, str) for text in sources.values()):
        raise BadInput(f"{path.name}: [sources] must map short names to texts")
    targets = []
    for item in tables.entries(document, "target", path.name):
        if item["id"] == LOCAL:
            raise BadInput(
                f"{path.name}: the id 'local' means this machine and cannot be in the catalogue"
            )
        targets.append(_entry(item, sources, dated, f"{path.name}: {item['id']}"))
    return tuple(targets)


def _entry(item: dict[str, Any], sources: dict[str, str], dated: str, where: str) -> Entry:
    tables.only(item, _FIELDS, where)
    kind = tables.text(item, "kind", where, KINDS)
    facts = {
        name: _fact(item[name], sources, f"{where}: {name}") for name in _NUMBERS if name in item
    }
    peaks = item.get("peaks", {})
    if not isinstance(peaks, dict):
        raise BadInput(f"{where}: peaks must be a table of formats")
    tables.only(peaks, FORMATS, f"{where}: peaks")
    for name, peak in peaks.items():
        facts[f"peak_{name}"] = _fact(peak, sources, f"{where}: peaks.{name}")
    for name in ("memory_bytes", *(("flash_bytes", "clock_hz") if kind == "mcu" else ())):
        if name not in facts:
            raise BadInput(f"{where}: {name} is missing; a target of kind {kind} needs it")
    target = Target(
        id=item["id"],
        title=tables.text(item, "title", where),
        kind=kind,
        place=tables.text(item, "place", where, PLACES),
        memory_bytes=int(_value(facts, "memory_bytes") or 0),
        bandwidth=_value(facts, "bandwidth"),
        peaks=tuple((name, _value(facts, f"peak_{name}") or 0.0) for name in peaks),
        power_w=_value(facts, "power_w"),
        usd_per_hour=_value(facts, "usd_per_hour"),
        flash_bytes=None if "flash_bytes" not in facts else int(_value(facts, "flash_bytes") or 0),
        source=_sources(facts, item.get("note", "")),
        dated=dated,
    )
    return Entry(target, tuple(facts.items()), _class(item, kind, where))


def _class(item: dict[str, Any], kind: str, where: str) -> str:
    """The class or core that the device names, of the sort that its kind has."""
    if "class" not in item:
        return ""
    known = classes.classes().cores if kind == "mcu" else classes.classes().devices
    return tables.text(item, "class", where, tuple(entry.id for entry in known))


def _fact(table: Any, sources: dict[str, str], where: str) -> Fact:
    if not isinstance(table, dict):
        raise BadInput(f"{where} must be a table with value and source, not {table!r:.60}")
    tables.only(table, ("value", "source", "note"), where)
    return Fact(
        tables.positive(table.get("value"), f"{where}.value"), _source(table, sources, where)
    )


def _source(table: dict[str, Any], sources: dict[str, str], where: str) -> str:
    """The text behind the short name `source`, with the number's own note."""
    name = tables.text(table, "source", where)
    if name not in sources:
        raise BadInput(f"{where}: the source {name!r} is not in [sources]")
    note = table.get("note")
    return f"{sources[name]} ({note})" if note else sources[name]


def _value(facts: dict[str, Fact], name: str) -> float | None:
    fact = facts.get(name)
    return None if fact is None else fact.value


def _sources(facts: dict[str, Fact], note: str) -> str:
    """All sources in one text: each said once, with the numbers it stands behind."""
    by_source: dict[str, list[str]] = {}
    for name, fact in facts.items():
        by_source.setdefault(fact.source, []).append(name)
    parts = [f"{', '.join(names)}: {source}" for source, names in by_source.items()]
    return "; ".join([*parts, note] if note else parts)
