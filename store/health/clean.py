"""What may be kept: checks and the cleaning of text, the same for every store."""

from __future__ import annotations

import math
from typing import Any

from core.data.times import utc


def whole(value: Any, bits: int = 31) -> int:
    """`value` when it is a whole number from 0 that fits a column of `bits`; ValueError else."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**bits:
        raise ValueError(f"{value!r} is not a whole number below 2^{bits}")
    return value


def finite(value: Any) -> float:
    """`value` as a float; ValueError when it is not finite."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def clean(text: Any) -> str:
    """`text` as it is kept: U+FFFD instead of NUL, which PostgreSQL cannot hold, and of half
    surrogates, which no UTF-8 file can hold.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not text")
    cleaned = text.replace("\0", "\ufffd")
    if cleaned.isascii():
        return cleaned
    return cleaned.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_time(text: Any) -> str:
    """A time as it is kept, in UTC; clean text that is none stays what it is."""
    return utc(clean(text))


def clean_data(data: Any) -> Any:
    """JSON data with every text cleaned."""
    if isinstance(data, str):
        return clean(data)
    if isinstance(data, dict):
        return {clean(key): clean_data(item) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [clean_data(item) for item in data]
    return data
