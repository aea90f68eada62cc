"""The hash chain of a journal: every line carries its number, the hash of the line before it, and
its own.

Owns how a line is sealed and what a broken chain tells; knows no file. It guards against damage and
careless editing, not against somebody who makes all hashes again. Lines of an older version carry
no chain; they may only stand before the first chained line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from core.errors import BadInput
from core.journal.events import Event
from core.journal.lines import from_line

_TAIL = re.compile(rb',"n":(\d{1,12}),"prev":"([0-9a-f]{32})","hash":"([0-9a-f]{32})"\}$')
_PLAIN = {"id", "kind", "study", "trial", "at", "body"}
_HINTS = {
    name: re.compile(rb'"' + name.encode() + rb'":"([A-Za-z0-9_.-]{1,60})"')
    for name in ("id", "kind", "study", "trial", "metric")
}


@dataclass(frozen=True)
class Link:
    """The end of a chain: the number of its last line (0 before the first) and that line's hash."""

    number: int
    hash: str


@dataclass(frozen=True)
class Damage:
    """What is wrong in one place. `number` is the line's number in the chain, 0 when unknown;
    `event_id` is empty when it cannot be read. `lost` means that the journal no longer says what it
    said.
    """

    text: str
    number: int = 0
    event_id: str = ""
    lost: bool = True


@dataclass(frozen=True)
class Checked:
    """What the lines of a journal say. `torn` is a last line that a killed writer left half
    written: it was never acknowledged, so it is no damage. `hashes` are those of the chained lines
    by number.
    """

    events: tuple[Event, ...]
    damage: tuple[Damage, ...]
    torn: bool
    hashes: dict[int, str]
    last: Link


@lru_cache(maxsize=1024)
def root(name: str) -> Link:
    """What the first line of the journal `name` (its study and file) follows."""
    return Link(0, _hash(f"trimtab journal 1\n{name}\n".encode("utf-8", "surrogateescape")))


def seal(name: str, after: Link, line: str) -> tuple[str, Link]:
    """`line`, a JSON object in ASCII, with its number and hashes; and the new end of the chain."""
    content = f'{line[:-1]},"n":{after.number + 1},"prev":"{after.hash}"'
    digest = _hash(root(name).hash.encode() + content.encode("ascii"))
    return f'{content},"hash":"{digest}"}}', Link(after.number + 1, digest)


def claimed(line: bytes) -> Link | None:
    """The number and hash that a line says it has; None when it says none. Nothing is proven."""
    tail = _TAIL.search(line[-140:])
    return Link(int(tail[1]), tail[3].decode()) if tail else None


def proven(name: str, line: bytes) -> Link | None:
    """As `claimed`, but only when the line is as it was written into the journal `name`."""
    link = claimed(line)
    if link is None:
        return None
    content = line[: line.rindex(b',"hash":"')]
    return link if _hash(root(name).hash.encode() + content) == link.hash else None


def end(name: str, data: bytes) -> Link:
    """What the next line of the journal shall follow. A damaged last line keeps its number, so that
    it is still missed when others stand behind it.
    """
    checked = check(name, data)
    lines = data.split(b"\n")
    good = (place for place, line in enumerate(lines) if proven(name, line) is not None)
    spoilt = sum(bool(line.strip()) for line in lines[max(good, default=len(lines)) + 1 : -1])
    return Link(checked.last.number + spoilt, checked.last.hash)


def check(name: str, data: bytes) -> Checked:
    """Read all lines of the journal `name`."""
    texts = data.split(b"\n")
    lines = [_read(name, place, text) for place, text in enumerate(texts, start=1) if text.strip()]
    chained = [line for line in lines if line.link is not None]
    first = chained[0].place if chained else len(texts)
    older = [line for line in lines if line.link is None and line.event and line.place <= first]
    bad = [line for line in lines if line.link is None and line not in older]
    torn = bool(bad) and bad[-1].place == len(texts)
    if torn:
        bad.pop()
    damage: list[Damage] = []
    in_order = _in_order(chained, damage)
    damage += _gaps(root(name), in_order, bad, bool(older))
    damage += [Damage(f"line {line.place}: {line.why}") for line in chained if line.event is None]
    links = [line.link for line in in_order if line.link is not None]
    return Checked(
        tuple(line.event for line in (*older, *in_order) if line.event is not None),
        tuple(damage),
        torn,
        {link.number: link.hash for link in links},
        links[-1] if links else root(name),
    )


@dataclass(frozen=True)
class _Line:
    """`place` counts the lines of the file from 1; `link` is there when the line is proven."""

    place: int
    text: bytes
    link: Link | None
    before: str
    event: Event | None
    why: str = ""


def _read(name: str, place: int, text: bytes) -> _Line:
    link = proven(name, text)
    event, why = None, "it does not continue the lines before it"
    try:
        event = from_line(text.decode("utf-8"))
        if link is None and set(json.loads(text)) != _PLAIN:
            event, why = None, "its hash is not that of its words"
    except UnicodeDecodeError:
        why = "it is not text"
    except BadInput as error:
        why = str(error)
    tail = _TAIL.search(text[-140:]) if link else None
    return _Line(place, text, link, tail[2].decode() if tail else "", event, why)


def _in_order(chained: Sequence[_Line], damage: list[Damage]) -> list[_Line]:
    """Proven lines by number; repeats are dropped, and lines out of their place are named."""
    seen: dict[str, _Line] = {}
    numbers: dict[int, _Line] = {}
    highest = 0
    for line in chained:
        assert line.link is not None
        number = line.link.number
        if line.link.hash in seen:
            again = seen[line.link.hash].place
            damage.append(Damage(f"line {line.place} repeats line {again}", number, lost=False))
            continue
        if number in numbers:
            text = f"lines {numbers[number].place} and {line.place} both carry the number {number}"
            damage.append(Damage(text, number, lost=False))
        elif number < highest:
            text = f"line {line.place} ({what(line.text)}) stands in the wrong place"
            damage.append(Damage(text, number, lost=False))
        seen[line.link.hash] = numbers[number] = line
        highest = max(highest, number)
    return sorted(seen.values(), key=lambda line: line.link.number if line.link else 0)


def _gaps(last: Link, lines: Sequence[_Line], bad: Sequence[_Line], older: bool) -> list[Damage]:
    """Every number that is missing, by the damaged line in its place when there is one.

    Where no number is missing, a line that cannot be read is what a killed writer began and the
    next one ended: nothing was acknowledged, nothing is lost.
    """
    damage: list[Damage] = []
    place = 0
    for line in lines:
        assert line.link is not None
        missing = list(range(last.number + 1, line.link.number))
        spare = [broken for broken in bad if place < broken.place < line.place]
        if place == 0 and older and not missing:
            damage += [_changed(broken, 0) for broken in spare]
        claims = {link.number: broken for broken in spare if (link := claimed(broken.text))}
        strange = [broken for broken in spare if broken.event is not None]
        damage += [_changed(broken, 0) for broken in strange]
        spare = [broken for broken in spare if broken not in (*claims.values(), *strange)]
        for number in list(missing):
            broken = claims.get(number) or (spare.pop(0) if spare else None)
            if broken is not None:
                missing.remove(number)
                damage.append(_changed(broken, number))
        if missing:
            damage.append(_removed(missing, place, line.place))
        elif line.link.number == last.number + 1 and line.before != last.hash:
            text = f"line {line.place} does not continue line {place}: lines were replaced"
            damage.append(Damage(text, line.link.number))
        last, place = line.link, max(place, line.place)
    after = [broken for broken in bad if broken.place > place]
    numbers = range(last.number + 1, last.number + 1 + len(after)) if lines else [0] * len(after)
    return damage + [
        _changed(broken, number) for broken, number in zip(after, numbers, strict=True)
    ]


def _changed(line: _Line, number: int) -> Damage:
    event_id = _HINTS["id"].search(line.text)
    text = f"line {line.place} ({what(line.text)}) was changed or cut: {line.why}"
    return Damage(text, number, event_id[1].decode() if event_id else "")


def _removed(numbers: Sequence[int], low: int, high: int) -> Damage:
    where = f"before line {high}" if low == 0 else f"between lines {low} and {high}"
    count = f"{len(numbers)} lines were" if len(numbers) > 1 else "a line was"
    return Damage(f"{count} removed {where}", numbers[-1])


def what(line: bytes) -> str:
    """What a line, perhaps a damaged one, seems to say: `measurement ttft_s of trial t-1`."""
    hints = {name: (hint.search(line) or (b"", b""))[1].decode() for name, hint in _HINTS.items()}
    kind = hints["kind"] or "nothing that can be read"
    if hints["metric"]:
        kind += f" {hints['metric']}"
    if hints["trial"]:
        return f"{kind} of trial {hints['trial']}"
    return f"{kind} of study {hints['study']}" if hints["study"] else kind


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
