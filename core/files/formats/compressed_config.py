"""How a config.json says that matrices lie as compressed-tensors has them, and its checked reading.

It needs no torch; the tensors are compressed_tensors.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import BadInput
from core.files.formats.scheme import (
    WHERE,
    Module,
    Scheme,
    check_divides,
    empty,
    flag,
    group,
    whole,
    words,
)

METHOD = "compressed-tensors"
PACKED, INT8, FLOAT8 = "pack-quantized", "int-quantized", "float-quantized"
# Widths whose layout all versions of the package share.
BITS = (2, 4, 8)
# A pattern of a stranger's that a matcher can be sent away with for no longer than a moment.
_PATTERN = re.compile(r"[\w.\\^$|-]*(?:\*[\w.\\^$|-]*){0,2}")


def config(schemes: Mapping[str, Scheme], dense: Sequence[str]) -> dict[str, Any]:
    """quantization_config; matrices of one scheme make a group of it."""
    kinds = list(dict.fromkeys(schemes.values()))
    groups: dict[str, Any] = {}
    for i, kind in enumerate(kinds):
        names = [name for name, scheme in schemes.items() if scheme == kind]
        groups[f"group_{i}"] = {
            "targets": ["Linear"] if len(kinds) == 1 else names,
            "weights": _arguments(
                8 if kind.layout == FLOAT8 else kind.bits,
                "float" if kind.layout == FLOAT8 else "int",
                kind.symmetric,
                "group" if kind.group_size else "channel",
                group_size=kind.group_size or None,
            ),
            "input_activations": _inputs(kind),
            "output_activations": None,
            "format": kind.layout,
        }
    layouts = {kind.layout for kind in kinds}
    # The package (0.20) makes no room for packed zeros in a model that it keeps compressed, so
    # that transformers' plain call fails, unless the folder itself asks to be dequantized while it
    # is loaded; that is done by the first group's rule for all, which is right for a single group.
    alone = {"dequantize": True} if len(kinds) == 1 and packed_zeros(kinds[0]) else {}
    return alone | {
        "quant_method": METHOD,
        "format": next(iter(layouts)) if len(layouts) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": list(dense),
        "config_groups": groups,
    }


def packed_zeros(scheme: Scheme) -> bool:
    """Whether zeros are packed along the rows."""
    return scheme.layout == PACKED and not scheme.symmetric


def schemes(settings: Mapping[str, Any], modules: Sequence[Module]) -> dict[str, Scheme]:
    """The scheme of every quantized module of a checked quantization_config."""
    empty(settings, "kv_cache_scheme", "sparsity_config", "moe_sparsity_config", "transform_config")
    status = settings.get("quantization_status", "compressed")
    if status != "compressed":
        raise BadInput(f"{WHERE}.quantization_status must be compressed, not {status!r:.40}.")
    groups = settings.get("config_groups")
    if not isinstance(groups, Mapping) or not 1 <= len(groups) <= 1024:
        raise BadInput(f"{WHERE}.config_groups is missing or empty.")
    ignored = words(settings, "ignore")
    left = [
        module for module in modules if not any(_matches(word, module.name) for word in ignored)
    ]
    quantized: dict[str, Scheme] = {}
    for name, entry in groups.items():
        where = f"{WHERE}.config_groups.{name[:40]}"
        if not isinstance(entry, Mapping):
            raise BadInput(f"{where} must be an object.")
        scheme = _scheme(entry, settings.get("format"), where)
        targets = words(entry, "targets", where)
        for module in left:
            if module.name not in quantized and any(
                target == "Linear" or _matches(target, module.name) for target in targets
            ):
                check_divides(module, scheme)
                quantized[module.name] = scheme
    if not quantized:
        raise BadInput(f"{WHERE}.config_groups names no matrix of this model.")
    return {module.name: quantized[module.name] for module in modules if module.name in quantized}


def _arguments(
    bits: int,
    kind: str,
    symmetric: bool,
    strategy: str,
    dynamic: bool = False,
    group_size: int | None = None,
) -> dict[str, Any]:
    return {
        "num_bits": bits,
        "type": kind,
        "symmetric": symmetric,
        "strategy": strategy,
        "group_size": group_size,
        "dynamic": dynamic,
        "actorder": None,
        "block_structure": None,
    }


def _inputs(scheme: Scheme) -> dict[str, Any] | None:
    if scheme.inputs is None:
        return None
    dynamic = scheme.inputs == "dynamic"
    kind = "float" if scheme.layout == FLOAT8 else "int"
    return _arguments(8, kind, True, "token" if dynamic else "tensor", dynamic)


def _scheme(entry: Mapping[str, Any], overall: Any, where: str) -> Scheme:
    layout = entry.get("format") or overall
    if layout not in (PACKED, INT8, FLOAT8):
        raise BadInput(f"{where}.format must be {PACKED}, {INT8} or {FLOAT8}, not {layout!r:.40}.")
    empty(entry, "output_activations", where=where)
    weights = entry.get("weights")
    if not isinstance(weights, Mapping):
        raise BadInput(f"{where}.weights is missing.")
    inside = f"{where}.weights"
    kind = weights.get("type", "int")
    if kind != ("float" if layout == FLOAT8 else "int"):
        raise BadInput(f"{inside}.type {kind!r:.40} does not belong to {layout}.")
    bits = whole(weights, "num_bits", BITS if layout == PACKED else (8,), inside)
    symmetric = flag(weights, "symmetric", default=True, where=inside)
    empty(weights, "dynamic", "block_structure", where=inside)
    if weights.get("actorder") not in (None, False, "weight", "static"):
        raise BadInput(f"{inside}.actorder {weights['actorder']!r:.40} is not supported.")
    strategy = weights.get("strategy") or ("group" if weights.get("group_size") else "channel")
    if strategy not in ("group", "channel"):
        raise BadInput(f"{inside}.strategy must be group or channel, not {strategy!r:.40}.")
    size = group(weights, inside) if strategy == "group" else 0
    if layout != PACKED and (size or not symmetric):
        raise BadInput(f"{inside}: {layout} is read symmetric and by channel only.")
    inputs = entry.get("input_activations")
    if not inputs:
        return Scheme(bits, size, symmetric, layout)
    asked = f"{where}.input_activations"
    if not isinstance(inputs, Mapping) or layout == PACKED:
        raise BadInput(f"{asked} is supported for {INT8} and {FLOAT8} alone.")
    whole(inputs, "num_bits", (8,), asked)
    dynamic = flag(inputs, "dynamic", default=False, where=asked)
    plain = inputs.get("type", "int") == kind and flag(inputs, "symmetric", True, asked)
    if not plain or inputs.get("strategy", "token") != ("token" if dynamic else "tensor"):
        raise BadInput(f"{asked} must be symmetric {kind} 8, dynamic by token or static by tensor.")
    if layout == FLOAT8 and not dynamic:
        raise BadInput(f"{asked} of {FLOAT8} must be dynamic by token.")
    return Scheme(8, 0, True, layout, "dynamic" if dynamic else "static")


def _matches(word: str, name: str) -> bool:
    """A module's name, or a pattern of it behind `re:`."""
    if not word.startswith("re:"):
        return word == name
    pattern = word.removeprefix("re:")
    if not _PATTERN.fullmatch(pattern):
        raise BadInput(f"{WHERE}: the pattern {word[:80]!r} is not a plain one.")
    try:
        return re.match(pattern, name) is not None
    except re.error as error:
        raise BadInput(f"{WHERE}: the pattern {word[:80]!r} is no pattern: {error}.") from None
