"""Reads the catalogue's TOML files: one place that turns a damaged file or an unknown id into a
sentence.

Owns parsing and the checks that all catalogues share; what a field means is the business of
targets.py, workloads.py and models.py.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput

FOLDER = Path(__file__).parent
MAX_BYTES = 1_000_000


def read(path: Path) -> dict[str, Any]:
    """The parsed TOML file; BadInput when it is missing, too large or not TOML."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInput(f"{path.name} is larger than {MAX_BYTES:,} bytes: it is not a catalogue")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path.name} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path.name} is not valid TOML: {error}") from None


def entries(document: Mapping[str, Any], name: str, file: str) -> list[dict[str, Any]]:
    """The list of tables `[[name]]`, each with a unique `id`; BadInput otherwise."""
    tables = document.get(name)
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise BadInput(f"{file}: it needs a list of [[{name}]] tables")
    seen: set[str] = set()
    for position, entry in enumerate(tables, 1):
        key = entry.get("id")
        if not isinstance(key, str) or not key:
            raise BadInput(f"{file}: the {name} number {position} has no id")
        if key in seen:
            raise BadInput(f"{file}: the id {key!r} is given twice")
        seen.add(key)
    return tables


def text(entry: Mapping[str, Any], field: str, where: str, choices: tuple[str, ...] = ()) -> str:
    """A non-empty string field, one of `choices` where they are given."""
    value = entry.get(field)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{where}: {field} is missing or not a text")
    if choices and value not in choices:
        raise BadInput(f"{where}: {field} is {value!r}; it must be one of {', '.join(choices)}")
    return value


def positive(value: Any, where: str) -> float:
    """A finite number above zero: what is not known is left out, never written as zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{where} must be a finite number, not {value!r:.60}")
    if value <= 0:
        raise BadInput(f"{where} must be above 0, not {value!r}; leave an unknown number out")
    return float(value)


def only(entry: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """BadInput names a field that nobody reads, so that a typo does not vanish."""
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise BadInput(
            f"{where}: unknown field {unknown[0]!r}; known fields: {', '.join(sorted(known))}"
        )


def unknown_id(kind: str, wanted: object, known: Iterable[str]) -> BadInput:
    """The error for an id that is in no catalogue, with the closest match and all known ids."""
    names = list(known)
    close = difflib.get_close_matches(str(wanted).lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return BadInput(f"unknown {kind} {str(wanted)[:80]!r}{hint} known {kind}s: {', '.join(names)}")
