"""Dataclass <-> JSON, with a type tag and a version, so that old rows stay readable."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from core import techniques
from core.condition import Condition
from core.condition import read as read_condition
from core.dataset import Dataset
from core.errors import BadInput
from core.journal.codec_types import Fits, checks
from core.margin import Margin
from core.measurement import Measurement
from core.model import ClassifierShape, DecoderShape, Layers, Model, Projection
from core.plan import Case, Plan, settings
from core.priorities import Limit, Priorities
from core.report import Report
from core.study import KernelCalls, Study, Trial
from core.target import Target
from core.workload import Workload

Value = TypeVar("Value")
VERSION = 1
TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Case,
        ClassifierShape,
        Dataset,
        DecoderShape,
        KernelCalls,
        Layers,
        Limit,
        Margin,
        Measurement,
        Model,
        Plan,
        Priorities,
        Projection,
        Report,
        Study,
        Target,
        Trial,
        Workload,
    )
}


def to_data(value: Any) -> Any:
    """JSON-ready data; a dataclass becomes an object with `type`, a technique one with
    `technique`.
    """
    if isinstance(value, Condition):
        return str(value)
    if techniques.is_technique(value):
        chosen = settings(value)
        return {"technique": chosen.pop("name"), **chosen}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: to_data(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return {"type": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_data(item) for item in value]
    return value


def from_data(data: Any) -> Any:
    """The inverse of to_data; lists become tuples. BadInput names an unknown type or field."""
    try:
        return _read(data)
    except RecursionError:
        raise BadInput("stored data is nested too deeply: it is damaged") from None


# Samples come by the million: what needs no reading is passed on without a look at each item.
_PLAIN = frozenset({float, int, str, bool, type(None)})


def _read(data: Any) -> Any:
    if isinstance(data, list):
        if _PLAIN.issuperset(map(type, data)):
            return tuple(data)
        return tuple(_read(item) for item in data)
    if not isinstance(data, dict):
        return data
    if "technique" in data:
        chosen = {key: _read(item) for key, item in data.items() if key != "technique"}
        return techniques.build(data["technique"], chosen)
    name = data.get("type")
    kind = TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise BadInput(
            f"stored data of unknown type {name!r}: it was written by a newer Trimtab or is damaged"
        )
    return _build(kind, data, str(name))


def fields_from(kind: Callable[..., Value], data: dict[str, Any], name: str) -> Value:
    """A dataclass from its fields alone, without a type tag; what is not among them is passed over.
    BadInput calls it by `name` and says what is missing or damaged.
    """
    try:
        return _build(kind, data, name, pass_over=True)
    except RecursionError:
        raise BadInput(f"stored {name} is nested too deeply: it is damaged") from None


def _build(
    kind: Callable[..., Value], data: dict[str, Any], name: str, pass_over: bool = False
) -> Value:
    fields = _fields(kind)
    try:
        values = {}
        for key, item in data.items():
            if key == "type":
                continue
            field = fields.get(key)
            if field is None:
                if pass_over:
                    continue
                unknown = sorted(data.keys() - fields.keys() - {"type"})
                raise BadInput(f"stored {name} has unknown fields: {', '.join(unknown)}")
            if type(item) not in _PLAIN and not field.is_raw:
                item = _read(item)
            if field.is_condition and type(item) is str:
                item = read_condition(item)
            # JSON writes 2.0 and 2 alike in other writers: give floats back.
            if field.is_float and type(item) is int:
                item = float(item)
            if not field.fits(item):
                raise BadInput(f"stored {name} is damaged: {key} cannot be {item!r:.60}")
            values[key] = item
        return kind(**values)
    except TypeError as error:
        raise BadInput(f"stored {name} is incomplete: {error}") from None
    except (ValueError, OverflowError) as error:
        raise BadInput(f"stored {name} is damaged: {error}") from None


@dataclasses.dataclass(frozen=True)
class _Field:
    """What fits a field, and whether it holds floats but no ints, JSON as it is, or a condition."""

    fits: Fits
    is_float: bool
    is_raw: bool
    is_condition: bool


# Reading the annotations takes ten times as long as all the rest of from_data.
@functools.cache
def _fields(kind: Any) -> dict[str, _Field]:
    hints = typing.get_type_hints(kind)
    fields = {}
    for name, fits in checks(kind).items():
        hint = hints[name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        is_float = float in options and int not in options
        is_raw = typing.get_origin(hint) is dict
        fields[name] = _Field(fits, is_float, is_raw, hint is Condition)
    return fields


def dumps(value: Any) -> str:
    """One line of JSON with the format's version."""
    return json.dumps(
        {"version": VERSION, "value": to_data(value)}, separators=(",", ":"), allow_nan=False
    )


def loads(text: str) -> Any:
    """Read what dumps wrote; BadInput on damage or a newer version."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput("stored data is not JSON: it is damaged") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        version = document.get("version") if isinstance(document, dict) else None
        raise BadInput(f"stored data has version {version!r}, this Trimtab reads version {VERSION}")
    if "value" not in document:
        raise BadInput("stored data has no value: it is damaged")
    return from_data(document["value"])
