"""Mutators for the figure fuzz: bytes, texts and JSON values made hostile, all from one seed."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, -(2**63), 2**64, 10**18, 10**400, 1.5, -0.0, 1e308, 5e-324,
    float("nan"), float("inf"), "", " ", "0", "-1", "nan", "1e999", "١٢", "\x00", "\n", "\ud800",
    "x" * 3000, "../../etc/passwd", "=1+1", "<script>", "💥", [], [[]], [1], [None] * 3, {},
    {"": 0}, {"type": "Study"}, {"technique": "weight-int8"}, {"type": "Measurement"},
)  # fmt: skip
TOKENS = (
    b"", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b",", b":",
    b'"', b"\\", b"\n", b"\r", b"\t", b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"1e-999",
    b"-1", b"0", b"00", b"99999999999999999999", b"9" * 400, b"[" * 500, b'{"a":' * 500, b"=1+1",
    b"\\ud800", b"\\u0000", b"<=", b">=", b"=", b"%", b"e", b".", b"-", b"+", b"/", b"..", b"\\",
    b"'", b'"""', b"[[target]]", b"#", b"inf", b"nan", "é".encode(), "٣".encode(), "𝟛".encode(),
)  # fmt: skip


def any_value(rng: random.Random) -> Any:
    """A value that nobody expects."""
    return copy.deepcopy(rng.choice(VALUES))


def mutate(rng: random.Random, value: Any) -> Any:
    """A JSON value with one to three places changed, deep inside as often as outside."""
    changed = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(changed))
        if not places:
            return any_value(rng)
        holder, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[str(rng.choice(("extra", "type", "technique", "", "version", "\ud800")))] = (
                any_value(rng)
            )
        elif kind == 2 and isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), any_value(rng))
        elif kind == 3:
            other, place = rng.choice(places)
            if place in other if isinstance(other, dict) else place < len(other):
                holder[key] = copy.deepcopy(other[place])
        else:
            holder[key] = any_value(rng)
    return changed


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes with one to four cuts, flips, doublings or foreign pieces."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        until = min(len(changed), at + rng.choice((0, 1, 1, 2, 8, 40)))
        kind = rng.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[at:until]
        elif kind == 2:
            changed[at:at] = changed[at:until] * rng.choice((1, 2, 30))
        elif kind == 3:
            del changed[at:]
        else:
            changed[at:until] = rng.choice(TOKENS)
    return bytes(changed)


def mutate_text(rng: random.Random, text: str) -> str:
    """As mutate_bytes, for a text; what is no UTF-8 becomes lone surrogates, as in file names."""
    return mutate_bytes(rng, text.encode("utf-8", "surrogateescape")).decode(
        "utf-8", "surrogateescape"
    )


def json_bytes(rng: random.Random, value: Any) -> bytes:
    """A mutated JSON document as bytes: by value, by byte, or both."""
    text = json.dumps(mutate(rng, value) if rng.random() < 0.7 else value)
    content = text.encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, content) if rng.random() < 0.5 else content
