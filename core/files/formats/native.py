"""The format "trimtab": every kernel's weight exactly as it is, codes packed densely along k.

Owns config.json's quantization_config of quant_method "trimtab": one record a matrix, and which
tensors are behind a record. A matrix without a record is dense and has its Hugging Face names. The
tensors themselves are native_weights.py's: this file needs no torch.

A record of kind "lowbit" for the matrix NAME [n, k] means NAME.codes.0, .1, ... uint8 [n, ceil(k *
width / 8)], one for each plane of kernels.linear_lowbit.planes; NAME.scale fp16 or fp32 [n,
groups], or NAME.scale_codes uint8 with NAME.scale_step and NAME.scale_low fp32 [ceil(n / 16)];
NAME.zero uint8, fp16 or fp32 [n, groups] where groups have zeros of their own; with `inputs` e4m3
the inputs are rounded to E4M3 by token. "w8a8": NAME.codes
int8 [n, k], NAME.scale fp32 [n]. "llm-int8": the same with codes [n, k - o], NAME.apart int32 [o],
the columns that NAME.columns [n, o] holds in floats. "adapted": a record `base`, with NAME.a [r, k]
and NAME.b [n, r] beside it. "dense": NAME.weight [n, k]. All with NAME.bias [n] where the model has
one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from core.errors import BadInput
from core.files.formats.layout import Stack
from kernels.dtypes import BY_NAME
from kernels.lowbit_bytes import DOUBLE_ROWS, PLANES

METHOD, VERSION = "trimtab", 1
BITS_OF = {"nf4": 4, "fp4": 4, "ternary": 2, "binary": 1, "e4m3": 8, "e5m2": 8}
FLOATS = ("F32", "F16", "BF16")
KINDS = ("lowbit", "w8a8", "llm-int8", "adapted")
# A group at least as long as a row is the whole row.
MAX_RANK, MAX_GROUP = 4096, 1 << 30
# Dtypes that a tensor may have, and its shape, by name.
Shapes = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
Record = dict[str, Any]


def records(config: Mapping[str, Any], known: Mapping[str, Stack]) -> dict[str, Record]:
    """The checked records of quantization_config by matrix; BadInput names the field."""
    where = "config.json: quantization_config"
    settings = config["quantization_config"]
    if settings.get("version") != VERSION:
        raise BadInput(f"{where}.version must be {VERSION}, not {settings.get('version')!r:.40}.")
    matrices = settings.get("matrices")
    if not isinstance(matrices, dict) or not matrices:
        raise BadInput(f"{where}.matrices is missing or empty.")
    for name, record in matrices.items():
        if name not in known:
            raise BadInput(f"{where}.matrices names {name[:80]!r}, which this model does not have.")
        _check(f"{where}.matrices.{name}", record, known[name], KINDS)
    return matrices


def expected(stack: Stack, record: Mapping[str, Any]) -> Shapes:
    """Dtypes and shape of every tensor behind a checked record."""
    wanted = _expected(stack.name, stack.rows, stack.columns, record)
    if stack.bias:
        wanted[f"{stack.name}.bias"] = (FLOATS, (stack.rows,))
    return wanted


def _expected(name: str, n: int, k: int, record: Mapping[str, Any]) -> Shapes:
    kind = record["kind"]
    if kind == "adapted":
        rank = record["rank"]
        sides: Shapes = {f"{name}.a": (FLOATS, (rank, k)), f"{name}.b": (FLOATS, (n, rank))}
        return _expected(name, n, k, record["base"]) | sides
    if kind == "dense":
        return {f"{name}.weight": (FLOATS, (n, k))}
    if kind in ("w8a8", "llm-int8"):
        apart = record["columns"] if kind == "llm-int8" else 0
        wanted: Shapes = {
            f"{name}.codes": (("I8",), (n, k - apart)),
            f"{name}.scale": (("F32",), (n,)),
        }
        if apart:
            wanted[f"{name}.apart"] = (("I32",), (apart,))
            wanted[f"{name}.columns"] = (FLOATS, (n, apart))
        return wanted
    groups = -(-k // record["group_size"])
    wanted = {
        f"{name}.codes.{i}": (("U8",), (n, -(-k * width // 8)))
        for i, width in enumerate(PLANES[record["bits"]])
    }
    if record["scale"] == "u8":
        blocks = (-(-n // DOUBLE_ROWS),)
        wanted[f"{name}.scale_codes"] = (("U8",), (n, groups))
        wanted[f"{name}.scale_step"] = (("F32",), blocks)
        wanted[f"{name}.scale_low"] = (("F32",), blocks)
    else:
        wanted[f"{name}.scale"] = ((BY_NAME[record["scale"]].file,), (n, groups))
    if record.get("zero") is not None:
        wanted[f"{name}.zero"] = (
            (BY_NAME[record["zero"]].file,),
            (n, groups),
        )
    return wanted


def _check(where: str, record: Any, stack: Stack, kinds: tuple[str, ...]) -> None:
    if not isinstance(record, dict):
        raise BadInput(f"{where} must be an object.")
    _one_of(where, record, "kind", kinds)
    kind = record["kind"]
    if kind == "adapted":
        _whole(where, record, "rank", 1, MAX_RANK)
        _check(f"{where}.base", record.get("base"), stack, ("lowbit", "w8a8", "llm-int8", "dense"))
    elif kind == "w8a8":
        _one_of(where, record, "inputs", ("dynamic", "static"))
        scale = record.get("x_scale")
        if (record["inputs"] == "static") != (type(scale) is float and 0 < scale < math.inf):
            raise BadInput(f"{where}.x_scale must be a positive number for static inputs alone.")
    elif kind == "llm-int8":
        _whole(where, record, "columns", 1, stack.columns - 1)
    elif kind == "lowbit":
        _one_of(where, record, "codes", ("int", *BITS_OF))
        _whole(where, record, "bits", 1, 8)
        if record["bits"] != BITS_OF.get(record["codes"], record["bits"]):
            raise BadInput(f"{where}.bits must be {BITS_OF[record['codes']]} here.")
        _whole(where, record, "group_size", 1, MAX_GROUP)
        _one_of(where, record, "scale", ("fp16", "fp32", "u8"))
        _one_of(where, record, "zero", (None, "u8", "fp16", "fp32"))
        _one_of(where, record, "inputs", (None, "e4m3") if record["codes"] == "e4m3" else (None,))


def _one_of(where: str, record: Record, field: str, allowed: tuple[str | None, ...]) -> None:
    value = record.get(field)
    if not (value is None or isinstance(value, str)) or value not in allowed:
        shown = ", ".join(str(choice) for choice in allowed)
        raise BadInput(f"{where}.{field} must be one of {shown}, not {value!r:.40}.")


def _whole(where: str, record: Record, field: str, low: int, high: int) -> None:
    value = record.get(field)
    if type(value) is not int or not low <= value <= high:
        raise BadInput(
            f"{where}.{field} must be an integer from {low} to {high}, not {value!r:.40}."
        )
