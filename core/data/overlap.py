"""Finds what one set of texts has in common with another: runs of SHARED characters, white space
counted as one space.

Every run is hashed by doubling (a hash of 2 n characters from two of n), so that a text of n
characters costs n log2(SHARED) operations of numpy, whatever its lines are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

SHARED = 64
# Characters that are hashed at once.
PIECE = 1 << 20
# Odd, so that powers of it never vanish modulo 2^64.
BASE = np.uint64(0x9E3779B97F4A7C15)


def without_shared(texts: Iterable[str], others: Sequence[str]) -> list[str]:
    """`texts` without the lines that share SHARED characters in a row with any of `others`.

    What stood between such lines becomes a text of its own, unless it is shorter than SHARED.
    """
    lines, plain, owner = [], [], []
    for number, text in enumerate(texts):
        for line in text.splitlines(keepends=True):
            words = " ".join(line.split())
            plain.append(words + " " if words else "")
            owner.append(number)
            lines.append(line)
    if not lines:
        return []
    # Texts that follow each other must not make a run together: a character of no text parts them.
    joined: list[str] = []
    belongs: list[np.ndarray] = []
    for place, words in enumerate(plain):
        if place and owner[place] != owner[place - 1]:
            joined.append("\0")
            belongs.append(np.full(1, place - 1))
        joined.append(words)
        belongs.append(np.full(len(words), place))
    whose = np.concatenate(belongs).astype(np.int64)
    own = runs("".join(joined))
    shared = np.zeros(len(own), dtype=bool)
    if len(own):
        known = np.unique(own)
        met = np.zeros(len(known), dtype=bool)
        for other in others:
            for part in _windows(" ".join(other.split())):
                theirs = runs(part)
                places = np.searchsorted(known, theirs)
                places[places == len(known)] = 0
                met[places[known[places] == theirs]] = True
        shared = met[np.searchsorted(known, own)]
    starts = np.flatnonzero(shared)
    steps = np.zeros(len(lines) + 1, dtype=np.int64)
    np.add.at(steps, whose[starts], 1)
    np.add.at(steps, whose[starts + SHARED - 1] + 1, -1)
    return _rest(lines, owner, np.cumsum(steps[:-1]) > 0)


def _rest(lines: Sequence[str], owner: Sequence[int], dropped: np.ndarray) -> list[str]:
    cut = {owner[place] for place in np.flatnonzero(dropped).tolist()}
    parts: list[tuple[int, list[str]]] = []
    before: tuple[int, bool] = (-1, True)
    for place, line in enumerate(lines):
        if not dropped[place]:
            if before != (owner[place], False):
                parts.append((owner[place], []))
            parts[-1][1].append(line)
        before = (owner[place], bool(dropped[place]))
    whole = ((number, "".join(part)) for number, part in parts)
    return [
        text for number, text in whole if number not in cut or len(" ".join(text.split())) >= SHARED
    ]


def runs(text: str) -> np.ndarray:
    """uint64 [max(0, len(text) - SHARED + 1)]: a hash of the SHARED characters from each place."""
    values = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    values = (values + np.uint64(1)) * BASE
    values ^= values >> np.uint64(29)
    power, size = BASE, 1
    with np.errstate(over="ignore"):
        while size < SHARED:
            values = values[: max(0, len(values) - size)] * power + values[size:]
            power, size = power * power, 2 * size
    return values


def _windows(text: str) -> Iterable[str]:
    """`text` in parts that hold every run of SHARED characters."""
    for start in range(0, max(1, len(text)), PIECE):
        yield text[start : start + PIECE + SHARED - 1]
