"""Owns which matrices the formats of others hold, and how each is stored there: by shapes and
widths alone, so that it is known before the work as well as when the files are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from core.errors import Refused
from core.files.formats import awq, compressed_tensors
from core.files.formats.foreign import MODULES
from core.files.formats.layout import HEAD, Stack
from core.files.formats.scheme import OTHER, Kept, Module, Scheme


def check_model(config: Mapping[str, Any], format: str) -> None:
    """Refused for an architecture that nobody else knows."""
    if config.get("intermediate_sizes") or config["model_type"].startswith("trimtab"):
        raise Refused(
            f"{format} is read by others, who know no such architecture (uneven MLPs, or a"
            " classifier of ours); the format that holds it: trimtab"
        )


def arrange(
    matrices: Iterable[tuple[Stack, Kept | None]], format: str, tied: bool
) -> tuple[dict[str, Scheme], list[str]]:
    """(how each quantized module is stored, the dense ones) of stacks as they are kept (None:
    dense).

    Refused names the matrix, its shape and the formats that hold it; nothing but shapes is asked.
    """
    schemes: dict[str, Scheme] = {}
    dense: list[str] = []
    columns = {}
    for stack, kept in matrices:
        if kept is None or (format == awq.METHOD and stack.name == "head"):
            dense += [name for name, _ in stack.parts]
            continue
        for module in stack.modules():
            reason = refuse(kept, module, format)
            if reason is not None:
                raise Refused(refusal(kept, stack, reason))
            scheme = compressed_tensors.scheme_of(kept)
            if format != compressed_tensors.METHOD:
                scheme = replace(scheme, layout=compressed_tensors.PACKED)
            schemes[module.name], columns[module.name] = scheme, module.columns
    if not schemes:
        raise Refused(
            f"nothing is quantized, which {format} is for; the format of plain weights is trimtab"
        )
    every = set(schemes.values())
    schemes = {name: alike(scheme, columns[name], every) for name, scheme in schemes.items()}
    dense += [HEAD] if tied else []
    MODULES[format].config(schemes, dense)
    return schemes, dense


def refuse(kept: Kept, module: Module, format: str) -> str | None:
    """Why a format cannot hold a matrix, or None."""
    if kept.kind == OTHER:
        return f"{format} does not know such matrices"
    if kept.kind == "w8a8" and format != compressed_tensors.METHOD:
        return f"{format} has no int8 inputs"
    reason: str | None = MODULES[format].refuse(kept, module)
    return reason


def able(kept: Kept, stack: Stack) -> list[str]:
    """The formats of ours and of others that hold a matrix of this shape."""
    modules = stack.modules()
    others = (name for name in MODULES if not any(refuse(kept, each, name) for each in modules))
    return ["trimtab", *others]


def refusal(kept: Kept | None, stack: Stack, reason: str) -> str:
    """The sentence that refuses a matrix, with the formats that hold it."""
    assert kept is not None
    names = ", ".join(able(kept, stack))
    return f"{stack.name} is {kept.format}: {reason}; formats that hold it: {names}"


def alike(scheme: Scheme, columns: int, every: Iterable[Scheme]) -> Scheme:
    """A matrix that is a single group wide has that group where others have it, too."""
    size = next((other.group_size for other in every if other.group_size == columns), 0)
    packed = scheme.layout == compressed_tensors.PACKED and not scheme.group_size
    return replace(scheme, group_size=size) if packed and size else scheme
