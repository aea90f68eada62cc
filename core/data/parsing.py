"""What stands in a data file: text, multiple choice, questions with answers, images.

Turns bytes into checked items or a BadInput that names file and line. Opens no file: files.py does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from core.data.images import Images, from_rows, from_zip
from core.errors import BadInput

MAX_ITEMS = 100_000
MAX_LINE = 1_000_000
MIN_ITEMS = 10
MAX_CHOICES = 64
MAX_NEW_TOKENS = 256
SUFFIXES = (".txt", ".jsonl", ".npz")
SHAPES = (
    '{"text"}, {"prompt" or "question", "choices", "answer"}, {"prompt" or "question", "answer"}'
    ' or {"pixels", "label"}'
)


@dataclass(frozen=True)
class ChoiceTask:
    """A prompt with the texts that may follow it; `answer` is the index of the right one."""

    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class AnswerTask:
    """A prompt and the text that must follow it, up to `stop`."""

    prompt: str
    answer: str
    stop: str = "\n"
    max_tokens: int = 64


@dataclass(frozen=True)
class Content:
    """The items of one file; exactly one of the fields is filled."""

    texts: tuple[str, ...] = ()
    choices: tuple[ChoiceTask, ...] = ()
    answers: tuple[AnswerTask, ...] = ()
    pictures: Images | None = field(default=None)

    def __len__(self) -> int:
        pictures = 0 if self.pictures is None else len(self.pictures)
        return len(self.texts) + len(self.choices) + len(self.answers) + pictures

    def images(self) -> Images:
        """The images; ValueError when the file holds none."""
        if self.pictures is None:
            raise ValueError("the file holds no images")
        return self.pictures


def parse(name: str, data: bytes) -> tuple[str, Content]:
    """(kind, items) of a file called `name` with bytes `data`; BadInput names file and line."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise BadInput(f"{name}: data files end in {', '.join(SUFFIXES)}")
    if not data:
        raise BadInput(f"{name} is empty")
    if suffix == ".npz":
        pictures = from_zip(name, data)
        _enough(name, len(pictures), "images")
        return "images", Content(pictures=pictures)
    text = _text(name, data)
    if suffix == ".txt":
        if not text.strip():
            raise BadInput(f"{name} holds no text")
        return "text", Content(texts=(text,))
    return _from_lines(name, text)


def _text(name: str, data: bytes) -> str:
    """UTF-8 without its mark, with line ends as \\n."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadInput(f"{name} is UTF-16: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{name}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadInput(f"{name}, line {line}: a NUL character; this is not a text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _from_lines(name: str, text: str) -> tuple[str, Content]:
    """JSON lines; empty lines are skipped, the first item's kind is every item's."""
    kind = ""
    items: list[Any] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        if len(line) > MAX_LINE:
            raise BadInput(f"{where}: {len(line)} characters, at most {MAX_LINE} are read")
        if len(items) == MAX_ITEMS:
            raise BadInput(f"{name} has more than {MAX_ITEMS} items: give a sample of it")
        item = _object(where, line)
        own = _kind(where, item)
        if kind and own != kind:
            raise BadInput(f"{where}: {own} after {kind}; a file holds items of one kind")
        kind = own
        items.append(_READERS[kind](where, item))
    if not items:
        raise BadInput(f"{name} holds no items")
    if kind == "text":
        return kind, Content(texts=tuple(items))
    _enough(name, len(items), "images" if kind == "images" else "tasks")
    if kind == "choices":
        return kind, Content(choices=tuple(items))
    if kind == "answers":
        return kind, Content(answers=tuple(items))
    return kind, Content(pictures=from_rows(name, items))


def _enough(name: str, count: int, what: str) -> None:
    if count < MIN_ITEMS:
        raise BadInput(f"{name} has only {count} {what}: at least {MIN_ITEMS} are needed")
    if count > MAX_ITEMS:
        raise BadInput(f"{name} has {count} {what}: at most {MAX_ITEMS} are read")


def _object(where: str, line: str) -> Mapping[str, Any]:
    def refuse(word: str) -> float:
        raise ValueError(f"{word} is not a JSON number")

    try:
        item = json.loads(line, parse_constant=refuse)
    except RecursionError:
        raise BadInput(f"{where}: nested too deeply") from None
    except ValueError as error:
        raise BadInput(f"{where}: not JSON ({str(error)[:120]})") from None
    if not isinstance(item, dict):
        raise BadInput(f"{where}: each line must be one JSON object such as {SHAPES}")
    return item


def _kind(where: str, item: Mapping[str, Any]) -> str:
    asks = "prompt" in item or "question" in item
    if "pixels" in item:
        return "images"
    if asks and "choices" in item:
        return "choices"
    if asks and "answer" in item:
        return "answers"
    if "text" in item:
        return "text"
    raise BadInput(f"{where}: the object must be one of {SHAPES}")


def _string(where: str, item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{where}: {key!r} must be text that is not empty")
    return _plain(where, key, value)


def _plain(where: str, key: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{where}: {key!r} holds half of a surrogate pair") from None
    return value


def _prompt(where: str, item: Mapping[str, Any]) -> str:
    if "prompt" in item and "question" in item:
        raise BadInput(f"{where}: give 'prompt' or 'question', not both")
    return _string(where, item, "prompt" if "prompt" in item else "question")


def _text_item(where: str, item: Mapping[str, Any]) -> str:
    return _string(where, item, "text")


def _choice_item(where: str, item: Mapping[str, Any]) -> ChoiceTask:
    prompt, choices, answer = _prompt(where, item), item["choices"], item.get("answer")
    if not isinstance(choices, list) or not 2 <= len(choices) <= MAX_CHOICES:
        raise BadInput(f"{where}: 'choices' must be a list of 2 to {MAX_CHOICES} texts")
    for choice in choices:
        if not isinstance(choice, str) or not choice.strip():
            raise BadInput(f"{where}: 'choices' must be texts that are not empty")
        _plain(where, "choices", choice)
    if len({" ".join(choice.split()) for choice in choices}) < len(choices):
        raise BadInput(f"{where}: two of the 'choices' are the same text")
    if isinstance(answer, str):
        if answer not in choices:
            raise BadInput(f"{where}: 'answer' {answer[:60]!r} is none of the 'choices'")
        return ChoiceTask(prompt, tuple(choices), choices.index(answer))
    if type(answer) is not int:
        raise BadInput(f"{where}: 'answer' must be the index or the text of a choice")
    if not 0 <= answer < len(choices):
        raise BadInput(
            f"{where}: 'answer' {str(answer)[:20]} is out of range: the {len(choices)} choices"
            f" count from 0 to {len(choices) - 1}"
        )
    return ChoiceTask(prompt, tuple(choices), answer)


def _answer_item(where: str, item: Mapping[str, Any]) -> AnswerTask:
    answer = _string(where, item, "answer").strip()
    stop = item.get("stop", "\n")
    if not isinstance(stop, str) or not stop:
        raise BadInput(f"{where}: 'stop' must be text that is not empty")
    _plain(where, "stop", stop)
    if stop in answer:
        raise BadInput(
            f"{where}: 'answer' holds the stop {stop!r}, so it could never be given in full:"
            " set 'stop' to a text behind the answer"
        )
    most = item.get("max_tokens", 64)
    if type(most) is not int or not 1 <= most <= MAX_NEW_TOKENS:
        raise BadInput(f"{where}: 'max_tokens' must be a number from 1 to {MAX_NEW_TOKENS}")
    return AnswerTask(_prompt(where, item), answer, stop, most)


def _image_item(where: str, item: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return where, item


_READERS: dict[str, Any] = {
    "text": _text_item,
    "choices": _choice_item,
    "answers": _answer_item,
    "images": _image_item,
}
