"""The format "trimtab": every kernel's weight exactly as it is, codes packed densely along k.

Owns: config.json's quantization_config of quant_method "trimtab" with one record a matrix, the
tensors behind a record, and their check. A matrix without a record is dense and has its Hugging
Face name. Reading config and table needs no torch.

A low-bit matrix NAME [n, k] is NAME.codes.0, .1, ... uint8 [n, ceil(k * width / 8)], one for each
plane of kernels.linear_lowbit.planes; NAME.scale fp16 or fp32 [n, groups], or NAME.scale_codes
uint8 with NAME.scale_step and NAME.scale_low fp32 [ceil(n / 16)]; NAME.zero uint8 or fp32
[n, groups] where the format has zeros of its own; NAME.bias [n].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from core.artefacts.layout import Stack
from core.artefacts.parts import Part, part
from core.errors import BadInput, Refused

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit
    from kernels.linear_w8a8 import W8A8
    from kernels.weight import KernelWeight

METHOD, VERSION = "trimtab", 1
WIDTHS = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}
BITS_OF = {"nf4": 4, "fp4": 4, "ternary": 2, "binary": 1, "e4m3": 8, "e5m2": 8}
DOUBLE_ROWS = 16
FLOATS = ("F32", "F16", "BF16")
# See core.loading.values; a new model may start with output projections of zero.
NEVER_ZERO = ("qkv", "gate_up", "head", "q_proj", "k_proj", "gate_proj", "up_proj")
Shapes = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
Record = dict[str, Any]
Get = Callable[[str], Any]


def store(name: str, weight: KernelWeight) -> tuple[Record, list[Part]]:
    """The record and the tensors of one matrix; Refused for a kernel's weight that has none."""
    from kernels.linear_lowbit import LowBitWeight
    from kernels.linear_w8a8 import W8A8Weight

    if isinstance(weight, LowBitWeight):
        record, parts = _lowbit_parts(name, weight.form())
    elif isinstance(weight, W8A8Weight):
        record, parts = _w8a8_parts(name, weight.form())
    else:
        raise Refused(
            f"{name} is a {weight.format} matrix of the kernel {weight.kernel}, which no format"
            " of apply holds"
        )
    if weight.bias is not None:
        parts.append(part(f"{name}.bias", weight.bias))
    return record, parts


def restore(
    stack: Stack, record: Mapping[str, Any], get: Get, dtype: Any, device: str
) -> KernelWeight:
    """The kernel's weight of a record that `expected` accepted; `get` gives a tensor by its name,
    in memory of its own.

    Raises BadInput for values that no sound file has.
    """
    from kernels.linear_lowbit import LowBitWeight
    from kernels.linear_w8a8 import W8A8Weight

    name = stack.name
    bias = get(f"{name}.bias").to(device, dtype) if stack.bias else None
    try:
        if record["kind"] == "w8a8":
            return W8A8Weight(_w8a8(name, record, get, device), bias, dtype)
        return LowBitWeight(_lowbit(stack, record, get, device), bias, dtype)
    except ValueError as error:
        raise BadInput(f"the matrix {name} cannot be used: {error}") from None


def records(config: Mapping[str, Any], known: Mapping[str, Stack]) -> dict[str, Record]:
    """The checked records of quantization_config by matrix; BadInput names the field."""
    where = "config.json: quantization_config"
    given = config["quantization_config"]
    if given.get("version") != VERSION:
        raise BadInput(f"{where}.version must be {VERSION}, not {given.get('version')!r:.40}.")
    found = given.get("matrices")
    if not isinstance(found, dict) or not found:
        raise BadInput(f"{where}.matrices is missing or empty.")
    for name, record in found.items():
        if name not in known:
            raise BadInput(f"{where}.matrices names {name[:80]!r}, which this model does not have.")
        if not isinstance(record, dict):
            raise BadInput(f"{where}.matrices.{name} must be an object.")
        _check_record(f"{where}.matrices.{name}", record, known[name])
    return found


def expected(stack: Stack, record: Mapping[str, Any]) -> Shapes:
    """Dtypes and shape of every tensor behind a checked record."""
    name, n, k = stack.name, stack.rows, stack.columns
    wanted: Shapes = {}
    if record["kind"] == "w8a8":
        wanted[f"{name}.codes"] = (("I8",), (n, k))
        wanted[f"{name}.scale"] = (("F32",), (n,))
        if record.get("apart"):
            wanted[f"{name}.apart"] = (("I32",), (record["apart"],))
    else:
        groups = -(-k // (record["group_size"] or k))
        for i, width in enumerate(WIDTHS[record["bits"]]):
            wanted[f"{name}.codes.{i}"] = (("U8",), (n, -(-k * width // 8)))
        if record["scale"] == "u8":
            blocks = (-(-n // DOUBLE_ROWS),)
            wanted[f"{name}.scale_codes"] = (("U8",), (n, groups))
            wanted[f"{name}.scale_step"] = (("F32",), blocks)
            wanted[f"{name}.scale_low"] = (("F32",), blocks)
        else:
            scale = "F16" if record["scale"] == "fp16" else "F32"
            wanted[f"{name}.scale"] = ((scale,), (n, groups))
        if record["zero"] is not None:
            wanted[f"{name}.zero"] = (("U8",) if record["zero"] == "u8" else ("F32",), (n, groups))
    if stack.bias:
        wanted[f"{name}.bias"] = (FLOATS, (n,))
    return wanted


def _check_record(where: str, record: Record, stack: Stack) -> None:
    if record.get("kind") == "w8a8":
        _one_of(where, record, "inputs", ("dynamic", "static"))
        scale = record.get("x_scale")
        if (record["inputs"] == "static") != (type(scale) is float and 0 < scale < math.inf):
            raise BadInput(f"{where}.x_scale must be a positive number for static inputs alone.")
        _whole(where, record, "apart", 0, stack.columns)
        return
    _one_of(where, record, "kind", ("lowbit",))
    _one_of(where, record, "codes", ("int", *BITS_OF))
    _whole(where, record, "bits", 1, 8)
    if record["bits"] != BITS_OF.get(record["codes"], record["bits"]):
        raise BadInput(f"{where}.bits must be {BITS_OF[record['codes']]} for {record['codes']}.")
    _whole(where, record, "group_size", 0, max(0, stack.columns - 1))
    _one_of(where, record, "scale", ("fp16", "fp32", "u8"))
    _one_of(where, record, "zero", (None, "u8", "fp32"))


def _one_of(where: str, record: Record, field: str, allowed: tuple[str | None, ...]) -> None:
    value = record.get(field)
    if not (value is None or isinstance(value, str)) or value not in allowed:
        shown = ", ".join(str(one) for one in allowed)
        raise BadInput(f"{where}.{field} must be one of {shown}, not {value!r:.40}.")


def _whole(where: str, record: Record, field: str, low: int, high: int) -> None:
    value = record.get(field)
    if type(value) is not int or not low <= value <= high:
        raise BadInput(
            f"{where}.{field} must be an integer from {low} to {high}, not {value!r:.40}."
        )


def _lowbit_parts(name: str, form: LowBit) -> tuple[Record, list[Part]]:
    import torch

    from kernels.linear_lowbit import planes

    n, k, groups = form.n, form.k, form.groups
    whole = form.zero is not None and bool(
        ((form.zero == form.zero.round()) & (form.zero >= 0) & (form.zero <= 255)).all()
    )
    record: Record = {
        "kind": "lowbit",
        "codes": form.kind,
        "bits": form.bits,
        "group_size": 0 if form.group_size >= k else form.group_size,
        "scale": form.scale_format,
        "zero": None if form.zero is None else "u8" if whole else "fp32",
    }
    packed: list[list[Tensor]] = []

    def plane(index: int) -> Tensor:
        # All planes come of one pass; they are let go with the last.
        if not packed:
            packed.append(planes.pack(form.codes, form.bits))
        return packed[0][index]

    parts = [
        Part(f"{name}.codes.{i}", "U8", (n, -(-k * width // 8)), lambda i=i: plane(i))  # type: ignore[misc]
        for i, width in enumerate(WIDTHS[form.bits])
    ]
    if form.double is not None:
        double = form.double
        parts += [
            part(f"{name}.scale_codes", double.codes),
            part(f"{name}.scale_step", double.step),
            part(f"{name}.scale_low", double.low),
        ]
    else:
        kept = torch.float16 if form.scale_format == "fp16" else torch.float32
        parts.append(part(f"{name}.scale", form.scale.to(kept)))
    if form.zero is not None:
        parts.append(part(f"{name}.zero", form.zero.to(torch.uint8) if whole else form.zero))
    assert all(one.shape[1:] != (groups,) or one.shape[0] == n for one in parts)
    return record, parts


def _lowbit(stack: Stack, record: Mapping[str, Any], get: Get, device: str) -> LowBit:
    from kernels.linear_lowbit import LowBit, planes
    from kernels.linear_lowbit.codes import DoubleScale

    name, bits = stack.name, record["bits"]
    packed = [get(f"{name}.codes.{i}").to(device) for i in range(len(WIDTHS[bits]))]
    codes = planes.unpack(packed, bits, stack.columns)
    double = None
    if record["scale"] == "u8":
        double = DoubleScale(
            get(f"{name}.scale_codes").to(device),
            finite(f"{name}.scale_step", get(f"{name}.scale_step")).to(device),
            finite(f"{name}.scale_low", get(f"{name}.scale_low")).to(device),
        )
        scale = double.values()
    else:
        scale = finite(f"{name}.scale", get(f"{name}.scale")).to(device).float()
    zero = None
    if record["zero"] is not None:
        zero = finite(f"{name}.zero", get(f"{name}.zero")).to(device).float()
    check_scales(name, scale)
    if record["codes"] == "e4m3" and bool(((codes & 127) == 127).any()):
        raise BadInput(f"the tensor {name}.codes.0 holds codes of NaN.")
    if record["codes"] == "e5m2" and bool(((codes & 127) > 123).any()):
        raise BadInput(f"the tensor {name}.codes.0 holds codes of infinity or NaN.")
    return LowBit(
        codes, scale, zero, bits, record["group_size"] or stack.columns, record["codes"],
        record["scale"], double,
    )  # fmt: skip


def _w8a8_parts(name: str, form: W8A8) -> tuple[Record, list[Part]]:
    record: Record = {
        "kind": "w8a8",
        "inputs": "dynamic" if form.x_scale is None else "static",
        "apart": 0 if form.apart is None else form.apart.numel(),
    }
    if form.x_scale is not None:
        record["x_scale"] = float(form.x_scale)
    parts = [part(f"{name}.codes", form.codes), part(f"{name}.scale", form.scale)]
    if form.apart is not None:
        parts.append(part(f"{name}.apart", form.apart))
    return record, parts


def _w8a8(name: str, record: Mapping[str, Any], get: Get, device: str) -> W8A8:
    from kernels.linear_w8a8 import W8A8

    scale = finite(f"{name}.scale", get(f"{name}.scale")).to(device)
    check_scales(name, scale)
    apart = get(f"{name}.apart").to(device) if record["apart"] else None
    return W8A8(get(f"{name}.codes").to(device), scale, record.get("x_scale"), apart)


def finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor, which must have no NaN and no infinity."""
    if not bool(tensor.isfinite().all()):
        raise BadInput(f"the tensor {name} holds values that are not finite.")
    return tensor


def check_scales(name: str, scale: Tensor) -> None:
    """BadInput when every scale is zero where no model has a matrix of nothing."""
    if name.endswith(NEVER_ZERO) and not bool(scale.count_nonzero()):
        raise BadInput(
            f"the scales of the matrix {name} are nothing but zeros; the file is damaged."
        )
