"""Under what a number was measured, where that is not the workload as it is asked: another prompt
length, the user's traffic, one part of the memory, one matrix.

In stores, journals and documents a condition is one text, as `prompt_tokens=256` or `rate=4/s`.
Only this file writes and reads that text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

# Names whose value is a whole number, and names whose value is a text.
_COUNTS = ("prompt_tokens", "concurrency")
_TEXTS = ("trace", "data", "calibration", "training")
_PARTS = ("kv", "workspace", "libraries")


@dataclass(frozen=True)
class Condition:
    """`name` says what was varied or picked out, `value` is its value; `format` belongs to some.

    Names: `prompt_tokens`, `concurrency` (whole numbers), `rate` (requests a second), `trace` (the
    beginning of the file's digest), `data` (which of several data sets), `calibration` and
    `training` (where what was learned from came from), `part` (of memory; weights with their
    `format`), `matrix` (with the `format` that was tried, or without) and `other`: a text that this
    version of Trimtab cannot read. False where nothing was varied: AS_ASKED.
    """

    name: str = ""
    value: str | int | float = ""
    format: str = ""

    def __bool__(self) -> bool:
        return bool(self.name)

    def __str__(self) -> str:
        if self.name in ("", "other"):
            return str(self.value)
        if self.name == "rate":
            return f"rate={self.value:g}/s"
        if self.name == "part":
            return f"{self.value}:{self.format}" if self.format else str(self.value)
        if self.name == "matrix":
            return f"{self.value}/{self.format}" if self.format else str(self.value)
        return f"{self.name}={self.value}"

    @property
    def bits(self) -> int | None:
        """Bits of the format that a matrix was tried in; None without an integer format."""
        digits = self.format.removeprefix("int")
        return int(digits) if digits != self.format and digits.isdecimal() else None


AS_ASKED = Condition()


def prompt_tokens(count: int) -> Condition:
    """Prompts of another length."""
    return Condition("prompt_tokens", count)


def concurrency(count: int) -> Condition:
    """So many requests at a time."""
    return Condition("concurrency", count)


def part(value: str, format_: str = "") -> Condition:
    """A part of the memory: `weights` in a format, `kv`, `workspace` or `libraries`."""
    return Condition("part", value, format_)


def matrix(name: str, bits: int | None = None) -> Condition:
    """One matrix of the model, tried in so many bits."""
    return Condition("matrix", name, "" if bits is None else f"int{bits}")


@lru_cache(maxsize=4096)
def read(text: str) -> Condition:
    """The condition that `text` states: str() of it is `text` again."""
    if not text:
        return AS_ASKED
    candidate = _read(text)
    return candidate if str(candidate) == text else Condition("other", text)


def _read(text: str) -> Condition:
    name, equals, rest = text.partition("=")
    if equals and name in _TEXTS:
        return Condition(name, rest)
    if equals and name in _COUNTS and rest.isdecimal():
        return Condition(name, int(rest))
    if equals and name == "rate":
        try:
            return Condition("rate", float(rest.removesuffix("/s")))
        except ValueError:
            return Condition("other", text)
    head, colon, format_ = text.partition(":")
    if text in _PARTS or (colon and head == "weights"):
        return part(head, format_)
    if equals or colon:
        return Condition("other", text)
    head, slash, format_ = text.rpartition("/")
    return Condition("matrix", head, format_) if slash else Condition("matrix", text)
