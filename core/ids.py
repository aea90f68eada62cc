"""String ids that sort by time, and the one clock format."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

_ALPHABET = "0123456789abcdefghijkmnpqrstuvwxyz"
_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """`prefix-` + 11 characters of microseconds + 3 random ones; ids of one process never sort
    backwards.

    Making one takes longer than a microsecond, so a burst of ids does not run ahead of the clock
    and of what other processes make later.
    """
    global _last
    with _lock:
        _last = max(_last + 1, time.time_ns() // 1000)
        stamp = _last
    digits = ""
    for _ in range(11):
        stamp, rest = divmod(stamp, len(_ALPHABET))
        digits = _ALPHABET[rest] + digits
    return f"{prefix}-{digits}" + "".join(secrets.choice(_ALPHABET) for _ in range(3))


def now() -> str:
    """Naive UTC time in ISO format with milliseconds."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")


def distinct(titles: Mapping[str, str]) -> dict[str, str]:
    """Names for people, by id: the title where no other id has it, else the title with the end of
    its id, of at least four characters, that tells it apart: `gptq(bits=4) …486b`.
    """
    names: dict[str, str] = {}
    for key, title in titles.items():
        alike = [twin for twin, other in titles.items() if other == title and twin != key]
        length = 4
        while length < len(key) and any(twin.endswith(key[-length:]) for twin in alike):
            length += 1
        names[key] = f"{title} …{key[-length:]}" if alike else title
    return names
