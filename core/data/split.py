"""Parts the user's data in two: what techniques may learn from, and what every trial is judged on.

The split follows from the content alone, so that all trials of a study, the baseline among them,
are judged on the same part, on any machine and under any name.

Text is parted by whole documents; one that holds more than a sixteenth of all, or than 64 kB, is
cut into blocks at line ends first, and the learning side of such a cut loses GAP characters. About
a quarter of a file's bytes, at most MOST_BYTES, is for learning: the units with the smallest
SHA-256 of their words. Equal units are on one side. What is judged stays whole; lines for learning
that share SHARED characters in a row, white space apart, with anything judged are dropped.
Questions and images are parted in the same way, by the SHA-256 of the prompt or of the pixels. Data
too small to be parted is judged whole, and nothing learns from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from core.data.files import load_dataset
from core.data.images import Images
from core.data.overlap import without_shared
from core.data.parsing import AnswerTask, ChoiceTask, Content
from core.dataset import Dataset

# Bytes of text, and images, below which nothing is taken from the user's data.
LEAST_BYTES, LEAST_IMAGES = 40_000, 400
SHARE, MOST_BYTES = 0.25, 4_000_000
# A document above this share of all, or above so many bytes, is cut into blocks.
BLOCKS, BLOCK_BYTES = 16, 65_536
GAP = 256
# Tasks that must remain, so that quality is still judged.
LEAST_TASKS = 100

Item = TypeVar("Item")


@dataclass(frozen=True)
class Parts:
    """What the user's files are parted into.

    `judged` has, by name of the file, what quality is measured on; `texts` or `images` is what may
    be learned from, before lines that stand in the judged part are dropped (`learning_texts`);
    `taken` names the files that these are of. `why_not` says why there is nothing to learn from,
    empty when there is.
    """

    judged: Mapping[str, Content]
    texts: tuple[str, ...] = ()
    images: Images | None = None
    taken: tuple[str, ...] = ()
    why_not: str = ""

    def learning_texts(self) -> tuple[str, ...]:
        """The texts to learn from, no SHARED characters of which stand in any judged item."""
        judged = [text for content in self.judged.values() for text in _texts(content)]
        return tuple(without_shared(self.texts, judged)) if self.texts else ()


def load_parts(data: Iterable[Dataset]) -> Parts:
    """The parts of a study's files, read again; BadInput when one has changed since."""
    return split({dataset.id: load_dataset(dataset) for dataset in data if dataset.path})


def split(contents: Mapping[str, Content]) -> Parts:
    """Part the files of a study, by name. Text is learned from before questions are."""
    judged, taken = dict(contents), list[str]()
    for read in (_from_texts, _from_tasks, _from_images):
        parts: list[Content] = []
        for name, content in contents.items():
            parted = read(content)
            if parted is not None:
                judged[name], learned = parted
                parts.append(learned)
                taken.append(name)
        if parts:
            # By digest: whoever reads only some of them reads from everywhere, in any order given.
            texts = tuple(sorted((text for part in parts for text in _texts(part)), key=_digest))
            images = _joined([part.pictures for part in parts if part.pictures is not None])
            return Parts(judged, texts, images, tuple(taken))
    return Parts(judged, why_not=_why_not(contents))


def _why_not(contents: Mapping[str, Content]) -> str:
    if not contents:
        return "there is no data of yours"
    images = any(content.pictures is not None for content in contents.values())
    least = f"{LEAST_IMAGES} images" if images else f"{LEAST_BYTES // 1000} kB of text"
    return f"your data is judged whole: it needs {least} or more, not all alike, to be parted"


def _from_texts(content: Content) -> tuple[Content, Content] | None:
    """(judged, learned) of a file of text, or None."""
    units = [unit for text in content.texts for unit in _units(text, _bytes(content.texts))]
    sizes = [len(unit.text.encode()) for unit in units]
    chosen = _smallest([_digest(unit.text) for unit in units], sizes, LEAST_BYTES)
    if not chosen:
        return None
    judged: list[str] = []
    for place, unit in enumerate(units):
        if place in chosen:
            continue
        # Blocks that follow each other are one text again.
        if not unit.first and place - 1 not in chosen:
            judged[-1] += unit.text
        else:
            judged.append(unit.text)
    learned = [_inner(units, place) for place in sorted(chosen)]
    return Content(texts=tuple(judged)), Content(texts=tuple(filter(str.strip, learned)))


def _from_tasks(content: Content) -> tuple[Content, Content] | None:
    for items, put in (
        (content.choices, lambda tasks: Content(choices=tuple(tasks))),
        (content.answers, lambda tasks: Content(answers=tuple(tasks))),
    ):
        if items:
            sizes = [len(task_text(task).encode()) for task in items]
            chosen = _smallest([_digest(task.prompt) for task in items], sizes, LEAST_BYTES)
            if not chosen or len(items) - len(chosen) < LEAST_TASKS:
                return None
            return _put(items, chosen, put)
    return None


def _from_images(content: Content) -> tuple[Content, Content] | None:
    pictures = content.pictures
    if pictures is None:
        return None
    digests = [hashlib.sha256(row.tobytes()).digest() for row in pictures.pixels]
    chosen = _smallest(digests, [1] * len(pictures), LEAST_IMAGES)
    if not chosen:
        return None
    return _put(range(len(pictures)), chosen, lambda rows: Content(pictures=_some(pictures, rows)))


def _put(
    items: Sequence[Item], chosen: frozenset[int], put: Callable[[list[Item]], Content]
) -> tuple[Content, Content]:
    """(judged, learned): the items that are not chosen, and those that are."""
    sides: tuple[list[Item], list[Item]] = ([], [])
    for place, item in enumerate(items):
        sides[place in chosen].append(item)
    return put(sides[0]), put(sides[1])


def _smallest(digests: Sequence[bytes], sizes: Sequence[int], least: int) -> frozenset[int]:
    """Places of the items with the smallest digests that make up SHARE; equal ones go together.
    Nothing where all are less than `least`, or where a few make up too much to be parted.
    """
    total = sum(sizes)
    if total < least:
        return frozenset()
    groups: dict[bytes, list[int]] = {}
    for place, digest in enumerate(digests):
        groups.setdefault(digest, []).append(place)
    chosen: list[int] = []
    taken, wanted = 0, min(SHARE * total, MOST_BYTES)
    for digest in sorted(groups):
        size = sum(sizes[place] for place in groups[digest])
        # As near to the share as whole groups come.
        if taken + size / 2 <= wanted:
            chosen += groups[digest]
            taken += size
        if taken >= wanted:
            break
    return frozenset(chosen if taken >= wanted / 2 else ())


@dataclass(frozen=True)
class _Unit:
    """A document, or a block of one: `first` and `last` say whether it begins and ends it."""

    text: str
    first: bool
    last: bool


def _units(text: str, total: int) -> Iterable[_Unit]:
    size = min(max(1, total // BLOCKS), BLOCK_BYTES)
    lines = text.splitlines(keepends=True)
    if len(text.encode()) <= size:
        return [_Unit(text, True, True)]
    parts: list[list[str]] = [[]]
    held = 0
    for line in lines:
        for piece in _pieces(line, size):
            own = len(piece.encode())
            if held + own > size and parts[-1]:
                parts.append([])
                held = 0
            parts[-1].append(piece)
            held += own
    blocks = ["".join(part) for part in parts]
    return [
        _Unit(block, place == 0, place == len(blocks) - 1) for place, block in enumerate(blocks)
    ]


def _pieces(line: str, size: int) -> Iterable[str]:
    """A line, in parts of at most `size` characters where it is longer."""
    return (line[start : start + size] for start in range(0, len(line), size))


def _inner(units: Sequence[_Unit], place: int) -> str:
    """A block without what lies next to its neighbours; whole lines where there are any."""
    unit = units[place]
    begin, end = 0, len(unit.text)
    if not unit.first:
        line = unit.text.find("\n", GAP)
        begin = line + 1 if 0 <= line < end // 2 else min(GAP, end)
    if not unit.last:
        line = unit.text.rfind("\n", 0, max(0, end - GAP))
        end = line + 1 if line > end // 2 else max(begin, end - GAP)
    return unit.text[begin:end]


def task_text(task: ChoiceTask | AnswerTask) -> str:
    """A question with its right answer, as text to learn from."""
    answer = task.answer if isinstance(task, AnswerTask) else task.choices[task.answer]
    space = "" if task.prompt[-1:].isspace() or answer[:1].isspace() else " "
    return task.prompt + space + answer


def _texts(content: Content) -> tuple[str, ...]:
    return (*content.texts, *map(task_text, content.choices), *map(task_text, content.answers))


def _bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _digest(text: str) -> bytes:
    return hashlib.sha256(" ".join(text.split()).encode()).digest()


def _some(pictures: Images, places: Sequence[int]) -> Images:
    chosen = np.array(places, dtype=np.int64)
    return replace(pictures, pixels=pictures.pixels[chosen], labels=pictures.labels[chosen])


def _joined(parts: Sequence[Images]) -> Images | None:
    if not parts:
        return None
    return Images(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
