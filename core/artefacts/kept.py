"""Owns how a matrix is kept, read off a kernel's weight or off a prediction: what a format cannot
hold is refused before anything is calibrated or trained, by the same rule as when it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.files.formats.scheme import OTHER, Kept
from core.files.storage import OutlierBytes, Storage
from kernels.dtypes import FLOATS
from kernels.lowbit_bytes import DenseBytes, Fp8Bytes, LowBitBytes
from kernels.w8a8_bytes import W8A8Bytes

if TYPE_CHECKING:
    from kernels.weight import KernelWeight


def of_form(form: Any) -> Kept:
    """Of a LowBit, an Fp8 or a W8A8."""
    from kernels.linear_fp8 import Fp8
    from kernels.linear_w8a8 import W8A8

    if isinstance(form, W8A8):
        scaling = "dynamic" if form.x_scale is None else "static"
        return Kept(
            form.format, "w8a8" if form.apart is None else OTHER, scale="fp32", inputs=scaling
        )
    zero = ""
    if form.zero is not None:
        zero = "whole" if bool((form.zero == form.zero.round()).all()) else "any"
    size = 0 if form.group_size >= form.k else form.group_size
    inputs = "dynamic" if isinstance(form, Fp8) else None
    return Kept(form.format, form.kind, form.bits, size, zero, form.scale_format, inputs)


def of_weight(weight: KernelWeight) -> Kept | None:
    """Of a kernel's weight; None when it is dense."""
    from kernels.forms import FORMED

    if weight.format in FLOATS:
        return None
    if not isinstance(weight, FORMED):
        return Kept(weight.format, OTHER)
    return of_form(weight.form())


def of_stored(stored: Storage | None, columns: int) -> Kept | None:
    """Of what is predicted (core.predict.effects) for a matrix with so many columns; None when it
    stays dense.
    """
    if stored is None or isinstance(stored, DenseBytes):
        return None
    name = stored.format(columns)
    if isinstance(stored, W8A8Bytes) and not isinstance(stored, OutlierBytes):
        return Kept(name, "w8a8", scale="fp32", inputs="static" if stored.static else "dynamic")
    if not isinstance(stored, LowBitBytes):
        return Kept(name, OTHER)
    size = 0 if stored.group_size >= columns else stored.group_size
    zero = {"": "", "int8": "whole"}.get(stored.zero, "any")
    inputs = "dynamic" if isinstance(stored, Fp8Bytes) else None
    return Kept(name, stored.kind, stored.bits, size, zero, stored.scale_format, inputs)
