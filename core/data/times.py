"""Times in one clock, UTC, whatever the machine's zone: a text without an offset means UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1)
# Fractions of a second as people's logs have them, from one digit to nanoseconds and beyond.
_FRACTION = re.compile(r"(?<=:\d\d)[.,](\d+)")
_ZONE = re.compile(r"\s*(?:UTC|Z|z)$|\s+(?=[+-]\d\d(?::?\d\d)?$)")


def moment(text: str) -> datetime:
    """A naive UTC time from ISO text, with or without an offset; ValueError when it is none."""
    instant = datetime.fromisoformat(text)
    try:
        return instant if instant.tzinfo is None else instant.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise ValueError(f"{text!r} lies outside the calendar") from None


def nanoseconds(text: str) -> int:
    """Nanoseconds since 1970 of a time in ISO form, optionally with a blank and with `Z`, `UTC` or
    an offset; ValueError when it is none.
    """
    text = _ZONE.sub(lambda zone: "+00:00" if zone[0].strip() else "", text.strip())
    fraction = _FRACTION.search(text)
    whole = moment(_FRACTION.sub("", text, count=1)) - EPOCH
    digits = fraction[1][:9].ljust(9, "0") if fraction else "0"
    return (whole.days * 86400 + whole.seconds) * 10**9 + int(digits)


def utc(text: str) -> str:
    """A time that has an offset as naive UTC text with milliseconds; any other text as it is."""
    try:
        if datetime.fromisoformat(text).tzinfo is None:
            return text
        return moment(text).isoformat(timespec="milliseconds")
    except ValueError:
        return text
