"""Owns making a kernel's weight of what the format "trimtab" holds; core.files.formats.native says
what is where and has checked it, here the values are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from core.engine.adapted import Adapted
from core.errors import BadInput
from core.files.formats.layout import Stack
from core.files.formats.sound import check_scales, finite
from kernels import linear_dense
from kernels.forms import weight_of
from kernels.linear_fp8 import Fp8
from kernels.linear_lowbit import LowBit, planes
from kernels.linear_lowbit.codes import DoubleScale
from kernels.linear_w8a8 import W8A8, W8A8Weight
from kernels.linear_w8a8.outliers import OutlierWeight
from kernels.lowbit_bytes import PLANES
from kernels.weight import KernelWeight

Get = Callable[[str], Tensor]


def restore(
    stack: Stack, record: Mapping[str, Any], get: Get, dtype: torch.dtype, device: str
) -> KernelWeight:
    """The kernel's weight of a checked record; `get` gives a tensor by its name, in memory of its
    own. Raises BadInput for values that no sound file has.
    """

    def here(name: str) -> Tensor:
        return get(name).to(device)

    bias = here(f"{stack.name}.bias").to(dtype) if stack.bias else None
    if bias is not None:
        finite(f"{stack.name}.bias", bias)
    try:
        return _restore(stack, record, here, bias, dtype)
    except ValueError as error:
        raise BadInput(f"the matrix {stack.name} cannot be used: {error}") from None


def _restore(
    stack: Stack, record: Mapping[str, Any], get: Get, bias: Tensor | None, dtype: torch.dtype
) -> KernelWeight:
    name, kind = stack.name, record["kind"]
    if kind == "adapted":
        a, b = (finite(f"{name}.{side}", get(f"{name}.{side}")).to(dtype) for side in "ab")
        return Adapted(_restore(stack, record["base"], get, bias, dtype), a, b)
    if kind == "dense":
        weight = finite(f"{name}.weight", get(f"{name}.weight")).to(dtype)
        return linear_dense.prepare(weight, bias)
    if kind == "lowbit":
        form = _restore_lowbit(stack, record, get)
        return weight_of(form if record.get("inputs") is None else Fp8.of(form), bias, dtype)
    scale = finite(f"{name}.scale", get(f"{name}.scale"))
    check_scales(f"{name}.scale", scale)
    codes = get(f"{name}.codes")
    if kind == "w8a8":
        return W8A8Weight(W8A8(codes, scale, record.get("x_scale")), bias, dtype)
    apart = get(f"{name}.apart")
    columns = finite(f"{name}.columns", get(f"{name}.columns")).to(dtype)
    return OutlierWeight(W8A8.of_kept(codes, scale, None, apart, stack.columns), columns, bias)


def _restore_lowbit(stack: Stack, record: Mapping[str, Any], get: Get) -> LowBit:
    name, bits, kind = stack.name, record["bits"], record["codes"]
    packed = [get(f"{name}.codes.{i}") for i in range(len(PLANES[bits]))]
    codes = planes.unpack(packed, bits, stack.columns)
    double = None
    if record["scale"] == "u8":
        double = DoubleScale(
            get(f"{name}.scale_codes"),
            finite(f"{name}.scale_step", get(f"{name}.scale_step")),
            finite(f"{name}.scale_low", get(f"{name}.scale_low")),
        )
        scale = double.values()
    else:
        scale = finite(f"{name}.scale", get(f"{name}.scale")).float()
    check_scales(f"{name}.scale", scale)
    zero = None
    if record.get("zero") is not None:
        zero = finite(f"{name}.zero", get(f"{name}.zero")).float()
    if kind in ("e4m3", "e5m2"):
        float8 = torch.float8_e4m3fn if kind == "e4m3" else torch.float8_e5m2
        finite(f"{name}.codes.0", codes.view(float8).float())
    size = record["group_size"]
    return LowBit(codes, scale, zero, bits, size, kind, record["scale"], double)
