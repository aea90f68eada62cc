"""Owns a kernel's weight on its way into the format "trimtab"; core.files.formats.native says what
is where, core.engine.load.native reads it back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.engine.adapted import Adapted
from core.errors import Refused
from core.files.formats.native import MAX_GROUP, Record
from core.files.formats.parts import Part, part
from kernels.linear_dense import DenseWeight
from kernels.linear_fp8 import Fp8Weight
from kernels.linear_lowbit import LowBitWeight, planes
from kernels.linear_w8a8 import W8A8, W8A8Weight
from kernels.linear_w8a8.outliers import OutlierWeight
from kernels.lowbit_bytes import PLANES
from kernels.weight import KernelWeight

Get = Callable[[str], Tensor]


def store(name: str, weight: KernelWeight) -> tuple[Record, list[Part]]:
    """The record and the tensors of one matrix; Refused for a kernel's weight that has none."""
    record, parts = _store(name, weight)
    if weight.bias is not None:
        parts.append(part(f"{name}.bias", weight.bias))
    return record, parts


def _store(name: str, weight: KernelWeight) -> tuple[Record, list[Part]]:
    if isinstance(weight, LowBitWeight):
        return _store_lowbit(name, weight)
    if isinstance(weight, Fp8Weight):
        codes, parts = _store_lowbit(name, weight)
        return codes | {"inputs": "e4m3"}, parts
    if isinstance(weight, W8A8Weight):
        form = weight.form()
        record: Record = {"kind": "w8a8", "inputs": "dynamic"}
        if form.x_scale is not None:
            record |= {"inputs": "static", "x_scale": float(form.x_scale)}
        return record, _store_int8(name, form, weight)
    if isinstance(weight, OutlierWeight):
        form, columns = weight.rest.form(), weight.columns
        parts = _store_int8(name, form, weight.rest)
        parts.append(part(f"{name}.apart", columns.to(torch.int32)))
        parts.append(part(f"{name}.columns", weight.dense.weight))
        return {"kind": "llm-int8", "columns": len(columns)}, parts
    if isinstance(weight, Adapted):
        base, parts = _store(name, weight.base)
        parts += [part(f"{name}.a", weight.a.weight), part(f"{name}.b", weight.b.weight)]
        return {"kind": "adapted", "rank": weight.rank, "base": base}, parts
    if isinstance(weight, DenseWeight):
        return {"kind": "dense"}, [part(f"{name}.weight", weight.weight)]
    raise Refused(
        f"{name} is a {weight.format} matrix of the kernel {weight.kernel}, which no format of"
        " apply holds"
    )


def _store_int8(name: str, form: W8A8, weight: W8A8Weight) -> list[Part]:
    shape = (form.n, form.k - (0 if form.apart is None else form.apart.numel()))
    return [
        Part(f"{name}.codes", "I8", shape, lambda: weight.form().kept()),
        part(f"{name}.scale", form.scale),
    ]


def _store_lowbit(name: str, weight: LowBitWeight | Fp8Weight) -> tuple[Record, list[Part]]:
    form = weight.form()
    n, k, bits, zero = form.n, form.k, form.bits, form.zero
    whole = zero is not None and bool(((zero == zero.round()) & (zero >= 0) & (zero <= 255)).all())
    short = zero is not None and torch.equal(zero.half().float(), zero)
    record: Record = {
        "kind": "lowbit",
        "codes": form.kind,
        "bits": bits,
        "group_size": min(form.group_size, MAX_GROUP),
        "scale": form.scale_format,
        "zero": None if zero is None else "u8" if whole else "fp16" if short else "fp32",
    }

    # Made again when they are written, so that not all of a model's codes lie there at once.
    def plane(index: int) -> Callable[[], Tensor]:
        return lambda: planes.pack(weight.form().codes, bits)[index]

    parts = [
        Part(f"{name}.codes.{i}", "U8", (n, -(-k * width // 8)), plane(i))
        for i, width in enumerate(PLANES[bits])
    ]
    if form.double is not None:
        double = form.double
        parts += [
            part(f"{name}.scale_codes", double.codes),
            part(f"{name}.scale_step", double.step),
            part(f"{name}.scale_low", double.low),
        ]
    else:
        dtype = torch.float16 if form.scale_format == "fp16" else torch.float32
        parts.append(part(f"{name}.scale", form.scale.to(dtype)))
    if zero is not None:
        dtype = torch.uint8 if whole else torch.float16 if short else torch.float32
        parts.append(part(f"{name}.zero", zero.to(dtype)))
    return record, parts
