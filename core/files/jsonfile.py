"""Owns reading a JSON file of unknown origin: caps on size and nesting, a sentence per defect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.errors import BadInput

MAX_DEPTH = 32
# Every value beyond the first costs a comma, a colon or a bracket: counting them is quick, while
# parsing a few hostile megabytes into objects takes gigabytes.
MAX_VALUES = 4_000_000
_MARKS = (b",", b"[", b"{")


def read_object(
    path: Path, max_bytes: int, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES
) -> dict[str, Any]:
    """The JSON object in `path`; BadInput names the file and what is wrong with it."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise BadInput(f"{path.name} has {size:,} bytes, more than the {max_bytes:,} allowed.")
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path.name} cannot be read: {error.strerror or error}.") from None
    return parse_object(path.name, content, max_depth, max_values)


def parse_object(
    name: str, content: bytes, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES
) -> dict[str, Any]:
    """The JSON object in `content`, which came from the file `name`."""
    if sum(content.count(mark) for mark in _MARKS) > max_values:
        raise BadInput(f"{name} holds more than {max_values:,} values.")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise BadInput(f"{name} is not UTF-8 text.") from None
    except RecursionError:
        raise BadInput(f"{name} is nested deeper than {max_depth} levels.") from None
    except ValueError as error:
        raise BadInput(f"{name} is not valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise BadInput(f"{name} must hold a JSON object, not a {type(value).__name__}.")
    _check(name, value, max_depth)
    return value


class _Doubled(dict[str, Any]):
    """An object that gives a key twice, where readers disagree which one counts."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    seen: set[str] = set()
    doubled = _Doubled(fields)
    doubled.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return doubled


def _check(name: str, value: Any, max_depth: int) -> None:
    level: list[Any] = [value]
    for _ in range(max_depth):
        below: list[Any] = []
        for item in level:
            if isinstance(item, _Doubled):
                raise BadInput(f"{name} gives the key {item.key[:80]!r} twice.")
            inner = item.values() if isinstance(item, dict) else item
            below += [child for child in inner if isinstance(child, (dict, list))]
        if not below:
            return
        level = below
    raise BadInput(f"{name} is nested deeper than {max_depth} levels.")
