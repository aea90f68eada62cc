"""Owns the formats of others as they are read: which there are, which scheme each module has, and
their modules joined into stacks.

How a module lies in a file is said by compressed_tensors.py, gptq.py and awq.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from core.files.config.fields import tied
from core.files.formats import awq, compressed_tensors, gptq
from core.files.formats.layout import HEAD, Stack
from core.files.formats.native import Shapes
from core.files.formats.scheme import Module, Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kernels.linear_lowbit import LowBit
    from kernels.linear_w8a8 import W8A8
    from kernels.weight import KernelWeight

MODULES = {module.METHOD: module for module in (compressed_tensors, gptq, awq)}


def schemes(config: Mapping[str, Any], known: Mapping[str, Stack]) -> dict[str, Scheme]:
    """The scheme of every quantized module of a folder; BadInput names the field."""
    settings = config["quantization_config"]
    modules = [module for stack in known.values() for module in stack.modules()]
    quantized: dict[str, Scheme] = MODULES[settings["quant_method"]].schemes(
        settings, [m for m in modules if m.name != HEAD or not tied(config)]
    )
    for stack in known.values():
        kinds = {quantized.get(name) for name, _ in stack.parts}
        if len(kinds) > 1:
            names = ", ".join(name for name, _ in stack.parts)
            raise BadInput(
                f"config.json: quantization_config stores {names} in different formats; they share"
                " their input and must be alike here."
            )
    return quantized


def expected(method: str, module: Module, scheme: Scheme) -> Shapes:
    """Dtypes and shape of a module's tensors, the bias among them."""
    wanted: Shapes = dict(MODULES[method].expected(module, scheme))
    if module.bias:
        wanted[f"{module.name}.bias"] = (("F32", "F16", "BF16"), (module.rows,))
    return wanted


def restore(
    method: str,
    stack: Stack,
    scheme: Scheme,
    get: Callable[[str], Tensor],
    dtype: torch.dtype,
    device: str,
) -> KernelWeight:
    """The kernel's weight of a stack, its modules' rows joined."""
    from kernels.forms import weight_of

    modules = stack.modules()
    try:
        forms = [MODULES[method].read(module, scheme, get) for module in modules]
        bias = _joined([get(f"{module.name}.bias") for module in modules]) if stack.bias else None
        if bias is not None:
            bias = bias.to(device, dtype)
        form = join(stack.name, forms)
        return weight_of(_moved(form, device), bias, dtype)
    except ValueError as error:
        raise BadInput(f"the matrix {stack.name} cannot be used: {error}") from None


def join(name: str, forms: list[Any]) -> LowBit | W8A8:
    """The forms of one stack as one; BadInput when inputs have different scales."""
    from kernels.linear_w8a8 import W8A8

    first: Any = forms[0]
    if isinstance(first, W8A8):
        if len({form.x_scale for form in forms}) > 1:
            raise BadInput(f"the modules of {name} share their input, but not its input_scale.")
        scale = _joined([form.scale for form in forms])
        inputs: W8A8 = replace(first, codes=_joined([form.codes for form in forms]), scale=scale)
        return inputs
    if len({(form.bits, form.group_size) for form in forms}) > 1:
        forms = widened(forms)
        first = forms[0]
    zero = None
    if any(form.zero is not None for form in forms):
        zero = _joined([form.zeros() for form in forms])
    wide = any(form.scale_format == "fp32" for form in forms)
    whole: LowBit = replace(
        first,
        codes=_joined([form.codes for form in forms]),
        scale=_joined([form.scale for form in forms]),
        zero=zero,
        scale_format="fp32" if wide else first.scale_format,
    )
    return whole


def widened(forms: list[Any]) -> list[Any]:
    """The same integers in the bits of the widest and the groups of the narrowest: the codes stay,
    so do the values.
    """
    bits = max(form.bits for form in forms)
    size = math.gcd(*(min(form.group_size, form.k) for form in forms))
    alike = []
    for form in forms:
        times = min(form.group_size, form.k) // size
        scale, zero = (side.repeat_interleave(times, dim=1) for side in (form.scale, form.zeros()))
        alike.append(replace(form, scale=scale, zero=zero, bits=bits, group_size=size))
    return alike


def _joined(parts: list[Tensor]) -> Tensor:
    import torch

    return torch.cat(parts)


def _moved(form: Any, device: str) -> Any:
    import torch

    moved = {
        name: value.to(device)
        for name, value in vars(form).items()
        if isinstance(value, torch.Tensor)
    }
    return replace(form, **moved)
