"""Whether a value read from JSON has the type that a dataclass's field states; nothing is changed.

A document whose numbers are texts would pass through every layer and fail, or lie, on a page.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any

from core import techniques
from core.plan import Technique

Fits = Callable[[Any], bool]
_PLAIN = (float, int, str, bool, type(None))


@functools.cache
def checks(kind: type) -> dict[str, Fits]:
    """One predicate for each field of the dataclass `kind`."""
    hints = typing.get_type_hints(kind)
    return {field.name: _fits(hints[field.name]) for field in dataclasses.fields(kind)}


def _fits(hint: Any) -> Fits:
    plain = _plain(hint)
    if plain is not None:
        return lambda value: type(value) in plain
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        options = [_fits(argument) for argument in arguments]
        return lambda value: any(option(value) for option in options)
    if typing.get_origin(hint) is tuple:
        return _tuple(arguments)
    if typing.get_origin(hint) is dict:
        return lambda value: type(value) is dict
    if hint is Technique:
        return techniques.is_technique
    if isinstance(hint, type):
        return lambda value: isinstance(value, hint)
    return lambda value: True


def _plain(hint: Any) -> frozenset[type] | None:
    """The types that do for a hint of plain types; an int does for a float."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if not all(option in _PLAIN for option in options):
        return None
    return frozenset(options) | ({int} if float in options else frozenset())


def _tuple(arguments: tuple[Any, ...]) -> Fits:
    if len(arguments) == 2 and arguments[1] is ...:
        # Samples come by the million: their types are compared without a call for each.
        plain = _plain(arguments[0])
        if plain is not None:
            return lambda value: type(value) is tuple and plain.issuperset(map(type, value))
        each = _fits(arguments[0])
        return lambda value: type(value) is tuple and all(map(each, value))
    parts = [_fits(argument) for argument in arguments]

    def fits(value: Any) -> bool:
        return (
            type(value) is tuple
            and len(value) == len(parts)
            and all(part(item) for part, item in zip(parts, value, strict=True))
        )

    return fits
