"""Owns how one matrix is kept, and how it is stored in a format of others, in words that need none
of its numbers; and the checked fields that say so. It needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import BadInput

WHERE = "config.json: quantization_config"
OTHER = "other"


@dataclass(frozen=True)
class Scheme:
    """Codes of `bits` in groups of `group_size` along k (0: one group a row).

    `layout` is the format's own word where it has several. `inputs` is "dynamic" or "static" where
    the inputs have 8 bit too.
    """

    bits: int
    group_size: int
    symmetric: bool
    layout: str = ""
    inputs: str | None = None

    def groups(self, columns: int) -> int:
        """Groups of a row."""
        return columns // self.group_size if self.group_size else 1


@dataclass(frozen=True)
class Module:
    """A Hugging Face module with a matrix [rows, columns]."""

    name: str
    rows: int
    columns: int
    bias: bool


@dataclass(frozen=True)
class Kept:
    """`format` is its name; `kind` LowBit's, "w8a8", or OTHER for what only our own format knows.

    Codes of `bits` in groups of `group_size` (0: one group a row); `zero` is "" without zeros,
    "whole" or "any"; `scale` the scales' format; `inputs` "dynamic" or "static" where they have 8
    bit too.
    """

    format: str
    kind: str
    bits: int = 8
    group_size: int = 0
    zero: str = ""
    scale: str = "fp16"
    inputs: str | None = None


def whole(
    settings: Mapping[str, Any], field: str, allowed: tuple[int, ...], where: str = WHERE
) -> int:
    """The integer `field`, one of `allowed`."""
    value = settings.get(field)
    if type(value) is not int or value not in allowed:
        shown = ", ".join(map(str, allowed))
        raise BadInput(f"{where}.{field} must be one of {shown}, not {value!r:.40}.")
    return value


def flag(settings: Mapping[str, Any], field: str, default: bool, where: str = WHERE) -> bool:
    """The boolean `field`."""
    value = settings.get(field, default)
    if value is None:
        return default
    if type(value) is not bool:
        raise BadInput(f"{where}.{field} must be true or false, not {value!r:.40}.")
    return value


def group(settings: Mapping[str, Any], where: str = WHERE) -> int:
    """group_size: a positive integer, or -1 for one group a row, which becomes 0."""
    value = settings.get("group_size")
    if type(value) is not int or not (value == -1 or 1 <= value <= 1 << 20):
        raise BadInput(
            f"{where}.group_size must be -1 or an integer from 1 to {1 << 20}, not {value!r:.40}."
        )
    return max(0, value)


def words(settings: Mapping[str, Any], field: str, where: str = WHERE) -> tuple[str, ...]:
    """A list of at most 4,096 short texts, or nothing."""
    value = settings.get(field)
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) > 4096
        or not all(isinstance(name, str) and 0 < len(name) <= 200 for name in value)
    ):
        raise BadInput(f"{where}.{field} must be a list of names.")
    return tuple(value)


def empty(settings: Mapping[str, Any], *fields: str, where: str = WHERE) -> None:
    """BadInput for a field whose meaning is not supported here."""
    for field in fields:
        if settings.get(field):
            raise BadInput(f"{where}.{field} is not supported.")


def whole_groups(format: str, size: int, module: Module) -> str | None:
    """Why a format of whole groups cannot hold a module, or None."""
    if size and module.columns % size:
        return (
            f"{format} holds whole groups, and {size} do not divide the {module.columns} columns of"
            f" {module.name}"
        )
    return None


def check_divides(module: Module, scheme: Scheme, columns: int = 1, rows: int = 1) -> None:
    """BadInput unless the groups, and packs of `columns` and `rows` codes, fill the matrix."""
    if scheme.group_size and module.columns % scheme.group_size:
        raise BadInput(
            f"{WHERE}: groups of {scheme.group_size} do not divide the {module.columns} columns of"
            f" {module.name}."
        )
    if module.columns % columns or module.rows % rows:
        raise BadInput(
            f"{WHERE}: {module.name} [{module.rows}, {module.columns}] cannot be packed in"
            f" {scheme.bits} bits, {rows} rows by {columns} columns at a time."
        )
