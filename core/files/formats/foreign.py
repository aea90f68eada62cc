"""Owns the formats of others: an engine's matrices apart into their modules, and back into stacks.

How a module lies in a file is said by compressed_tensors.py, gptq.py and awq.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.artefacts.contents import LONG, Contents, dense_parts
from core.artefacts.save import Layout
from core.errors import BadInput, Refused
from core.files.formats import awq, compressed_tensors, gptq
from core.files.formats.arrange import MODULES, able, arrange, check_model, modules_of
from core.files.formats.compressed_config import packed_zeros
from core.files.formats.kept import of_form, of_weight
from core.files.formats.layout import HEAD, Stack
from core.files.formats.native import Shapes
from core.files.formats.parts import Part, part
from core.files.formats.scheme import Module, Scheme

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kernels.linear_lowbit import LowBit
    from kernels.linear_w8a8 import W8A8
    from kernels.weight import KernelWeight


def schemes(config: Mapping[str, Any], known: Mapping[str, Stack]) -> dict[str, Scheme]:
    """The scheme of every quantized module of a folder; BadInput names the field."""
    given = config["quantization_config"]
    modules = [one for stack in known.values() for one in modules_of(stack)]
    tied = bool(config.get("tie_word_embeddings"))
    found: dict[str, Scheme] = MODULES[given["quant_method"]].schemes(
        given, [m for m in modules if m.name != HEAD or not tied]
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

    modules = modules_of(stack)
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


def layout(found: Contents, format: str) -> Layout:
    """An engine's files in a format of others; Refused names the matrix and who can hold it."""
    check_model(found.config, format)
    held = [(stack, of_weight(weight)) for stack, weight in found.weights]
    schemes, dense = arrange(held, format, found.config["tie_word_embeddings"])
    parts, notes = list(found.plain), []
    if format == gptq.METHOD and any(_needs_v2(weight) for _, weight in found.weights):
        schemes = {name: replace(one, layout=gptq.V2) for name, one in schemes.items()}
        notes.append(
            f"a group has the zero 0, which the first version of gptq cannot say: written as"
            f" checkpoint_format {gptq.V2}, which GPTQModel reads and older programs do not"
        )
    for stack, weight in found.weights:
        if weight.format in LONG:
            parts += dense_parts(stack, weight)
        elif stack.parts[0][0] in dense:
            parts.append(_dequantized(weight))
            notes.append(
                f"awq keeps heads dense: the {weight.format} head is written as the fp16 matrix"
                " that its codes stand for"
            )
        else:
            form = _form_of(stack, weight, format)
            for begin, end, name in spans(stack):
                parts += _parts(format, name, weight, form, schemes[name], begin, end)
                if weight.bias is not None:
                    parts.append(part(f"{name}.bias", weight.bias[begin:end]))
    kinds = set(schemes.values())
    if format == compressed_tensors.METHOD and len(kinds) > 1 and any(map(packed_zeros, kinds)):
        notes.append(
            "zeros in groups of several kinds: transformers (with compressed-tensors 0.20) cannot"
            " load this folder, nor rightly with dequantize=True; symmetric=1 or a group_size that"
            " every matrix has makes one that it can"
        )
    config = dict(found.config)
    config["quantization_config"] = MODULES[format].config(schemes, dense)
    # Readers round what is loaded to this; the scales are fp16.
    config["dtype"] = "float16" if format != compressed_tensors.METHOD else config["dtype"]
    return Layout(config, tuple(parts), tuple(notes))


def spans(stack: Stack) -> list[tuple[int, int, str]]:
    """First row, row behind the last, and name of a stack's modules."""
    found, begin = [], 0
    for name, rows in stack.parts:
        found.append((begin, begin + rows, name))
        begin += rows
    return found


def _form_of(stack: Stack, weight: Any, format: str) -> LowBit | W8A8:
    """A matrix in its canonical form, its numbers judged."""
    form: LowBit | W8A8 = weight.form()
    reason = MODULES[format].refuse_values(form)
    if reason is not None:
        fine = [
            one
            for one in able(of_form(form), stack)
            if one not in MODULES or MODULES[one].refuse_values(form) is None
        ]
        raise Refused(
            f"{stack.name} is {weight.format}: {reason}; formats that hold it: {', '.join(fine)}"
        )
    return form


def _parts(
    format: str,
    name: str,
    weight: Any,
    form: Any,
    scheme: Scheme,
    begin: int,
    end: int,
) -> list[Part]:
    # Made again when they are written, so that not all of a model's codes lie there at once.
    def codes() -> Tensor:
        again: Tensor = weight.form().codes[begin:end]
        return again

    sides = {"codes": form.codes[begin:end], "scale": form.scale[begin:end]}
    if getattr(form, "zero", None) is not None:
        sides["zero"] = form.zero[begin:end]
    rows = replace(form, **sides)
    if format == compressed_tensors.METHOD:
        return compressed_tensors.parts(name, rows, codes, scheme)
    if format == gptq.METHOD:
        return gptq.parts(name, rows, codes, gptq.V2 if scheme.layout == gptq.V2 else gptq.V1)
    return awq.parts(name, rows, codes)


def _needs_v2(weight: Any) -> bool:
    return weight.format not in LONG and gptq.needs_v2(weight.form())


def _dequantized(weight: KernelWeight) -> Part:
    import torch

    def make() -> Tensor:
        dense: Tensor = weight.dequantize().to(torch.float16)
        return dense

    return Part(f"{HEAD}.weight", "F16", (weight.n, weight.k), make)


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
