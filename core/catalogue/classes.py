"""Classes of devices and what published programs typically reach on them, read from classes.toml.

A class says how a device's stated limits become a rate; which device belongs to which class is said
by its entry in targets.toml.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.catalogue import tables
from core.errors import BadInput

FILE = tables.FOLDER / "classes.toml"
# Bits a weight, and how weights and inputs are multiplied.
WIDTHS = ("16", "8", "4")
PRODUCTS = ("16", "weights", "both")
# No band is wider than a factor of three.
MOST_SPREAD = 3**0.5
_CLASS = ("id", "title", "bandwidth", "compute", "layer_overhead_s", "overlapped", "spread", "note")
_CORE = ("id", "title", "cycles_per_mac", "cycles_per_weight", "spread", "note")


@dataclass(frozen=True)
class DeviceClass:
    """What programs typically reach: shares of the stated bandwidth by bits a weight (`WIDTHS`),
    shares of the stated peak by product (`PRODUCTS`), seconds a layer in every pass, whether a pass
    moves and computes at the same time, and the factor by which published programs differ from all
    that, either way.
    """

    id: str
    title: str
    bandwidth: tuple[tuple[str, float], ...]
    compute: tuple[tuple[str, float], ...]
    layer_overhead_s: float
    overlapped: bool
    spread: float


@dataclass(frozen=True)
class Core:
    """A microcontroller's core: cycles that 8-bit programs typically take for a multiply-accumulate
    whose weight is at hand, and for fetching a weight, and their spread either way.
    """

    id: str
    title: str
    cycles_per_mac: float
    cycles_per_weight: float
    spread: float
    note: str


@dataclass(frozen=True)
class Classes:
    """All that classes.toml knows."""

    devices: tuple[DeviceClass, ...]
    cores: tuple[Core, ...]

    def device(self, class_id: str) -> DeviceClass | None:
        """The class called `class_id`, None for a core or an unknown id."""
        return next((entry for entry in self.devices if entry.id == class_id), None)

    def core(self, class_id: str) -> Core | None:
        """The core called `class_id`, None for a class or an unknown id."""
        return next((entry for entry in self.cores if entry.id == class_id), None)

    def ids(self) -> tuple[str, ...]:
        """Every id that a target may name."""
        devices = tuple(entry.id for entry in self.devices)
        return (*devices, *(entry.id for entry in self.cores))


@functools.lru_cache(maxsize=1)
def classes() -> Classes:
    """The file's classes, read once."""
    return load(FILE)


def load(path: Path) -> Classes:
    """Read and check a file of classes; BadInput names the class and the field."""
    document = tables.read(path)
    tables.only(document, ("dated", "class", "core"), path.name)
    tables.text(document, "dated", path.name)
    found = Classes(
        tuple(_device(item, path.name) for item in tables.entries(document, "class", path.name)),
        tuple(_core(item, path.name) for item in tables.entries(document, "core", path.name)),
    )
    twice = {entry.id for entry in found.devices} & {entry.id for entry in found.cores}
    if twice:
        raise BadInput(f"{path.name}: the id {min(twice)!r} is a class and a core")
    return found


def _device(item: dict[str, Any], file: str) -> DeviceClass:
    where = f"{file}: {item['id']}"
    tables.only(item, _CLASS, where)
    return DeviceClass(
        item["id"],
        tables.text(item, "title", where),
        _shares(item.get("bandwidth"), WIDTHS, f"{where}: bandwidth"),
        _shares(item.get("compute"), PRODUCTS, f"{where}: compute"),
        tables.positive(item.get("layer_overhead_s"), f"{where}: layer_overhead_s"),
        _flag(item, "overlapped", where),
        _spread(item, where),
    )


def _core(item: dict[str, Any], file: str) -> Core:
    where = f"{file}: {item['id']}"
    tables.only(item, _CORE, where)
    return Core(
        item["id"],
        tables.text(item, "title", where),
        tables.positive(item.get("cycles_per_mac"), f"{where}: cycles_per_mac"),
        tables.positive(item.get("cycles_per_weight"), f"{where}: cycles_per_weight"),
        _spread(item, where),
        tables.text(item, "note", where),
    )


def _spread(item: dict[str, Any], where: str) -> float:
    spread = tables.positive(item.get("spread"), f"{where}: spread")
    if not 1 < spread <= MOST_SPREAD:
        raise BadInput(f"{where}: spread {spread:g} must be above 1 and at most the root of 3")
    return spread


def _flag(item: dict[str, Any], name: str, where: str) -> bool:
    value = item.get(name)
    if not isinstance(value, bool):
        raise BadInput(f"{where}: {name} must be true or false, not {value!r:.60}")
    return value


def _shares(table: Any, names: tuple[str, ...], where: str) -> tuple[tuple[str, float], ...]:
    if not isinstance(table, dict):
        raise BadInput(f"{where} must be a table of shares, not {table!r:.60}")
    tables.only(table, names, where)
    shares = tuple((name, tables.positive(table.get(name), f"{where}.{name}")) for name in names)
    for name, share in shares:
        if share > 1:
            raise BadInput(f"{where}.{name}: a share is at most 1, not {share:g}")
    return shares
