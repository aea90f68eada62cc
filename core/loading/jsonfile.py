"""Owns reading a JSON file of unknown origin: caps on size and nesting, a sentence per defect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.errors import BadInput

MAX_DEPTH = 32


def read_object(path: Path, max_bytes: int, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The JSON object in `path`; BadInput names the file and what is wrong with it."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise BadInput(f"{path.name} has {size:,} bytes, more than the {max_bytes:,} allowed.")
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path.name} cannot be read: {error.strerror or error}.") from None
    return parse_object(path.name, content, max_depth)


def parse_object(name: str, content: bytes, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The JSON object in `content`, which came from the file `name`."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_Pairs)
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


class _Pairs(dict[str, Any]):
    """An object that remembers a key given twice, where readers disagree which one counts."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.doubled = ""
        if len(self) != len(pairs):
            seen: set[str] = set()
            self.doubled = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]


def _check(name: str, value: Any, max_depth: int) -> None:
    level: list[Any] = [value]
    for _ in range(max_depth):
        below: list[Any] = []
        for item in level:
            if isinstance(item, _Pairs) and item.doubled:
                raise BadInput(f"{name} gives the key {item.doubled[:80]!r} twice.")
            inner = item.values() if isinstance(item, dict) else item
            below += [child for child in inner if isinstance(child, (dict, list))]
        if not below:
            return
        level = below
    raise BadInput(f"{name} is nested deeper than {max_depth} levels.")
