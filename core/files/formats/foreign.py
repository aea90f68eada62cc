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

MODULES = {one.METHOD: one for one in (compressed_tensors, gptq, awq)}


def schemes(config: Mapping[str, Any], known: Mapping[str, Stack]) -> dict[str, Scheme]:
    """The scheme of every quantized module of a folder; BadInput names the field."""
    given = config["quantization_config"]
    modules = [one for stack in known.values() for one in stack.modules()]
    found: dict[str, Scheme] = MODULES[given["quant_method"]].schemes(
        given, [m for m in modules if m.name != HEAD or not tied(config)]
    )
    for stack in known.values():
        kinds = {found.get(name) for name, _ in stack.parts}
        if len(kinds) > 1:
            names = ", ".join(name for name, _ in stack.parts)
            raise BadInput(
                f"config.json: quantization_config stores {names} in different formats; they share"
                " their input and must be alike here."
            )
    return found


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
        forms = [MODULES[method].read(one, scheme, get) for one in modules]
        bias = _joined([get(f"{one.name}.bias") for one in modules]) if stack.bias else None
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
        if len({one.x_scale for one in forms}) > 1:
            raise BadInput(f"the modules of {name} share their input, but not its input_scale.")
        scale = _joined([one.scale for one in forms])
        inputs: W8A8 = replace(first, codes=_joined([one.codes for one in forms]), scale=scale)
        return inputs
    if len({(one.bits, one.group_size) for one in forms}) > 1:
        forms = widened(forms)
        first = forms[0]
    zero = None
    if any(one.zero is not None for one in forms):
        zero = _joined([one.zeros() for one in forms])
    wide = any(one.scale_format == "fp32" for one in forms)
    whole: LowBit = replace(
        first,
        codes=_joined([one.codes for one in forms]),
        scale=_joined([one.scale for one in forms]),
        zero=zero,
        scale_format="fp32" if wide else first.scale_format,
    )
    return whole


def widened(forms: list[Any]) -> list[Any]:
    """The same integers in the bits of the widest and the groups of the narrowest: the codes stay,
    so do the values.
    """
    bits = max(one.bits for one in forms)
    size = math.gcd(*(min(one.group_size, one.k) for one in forms))
    found = []
    for one in forms:
        times = min(one.group_size, one.k) // size
        scale, zero = (side.repeat_interleave(times, dim=1) for side in (one.scale, one.zeros()))
        found.append(replace(one, scale=scale, zero=zero, bits=bits, group_size=size))
    return found


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
