"""Owns writing the formats of others: an engine's matrices apart into their modules.

How a module lies in a file is said by core.files.formats.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.artefacts.arrange import able, arrange, check_model
from core.artefacts.contents import Contents, dense_parts
from core.artefacts.kept import of_form, of_weight
from core.artefacts.save import FolderLayout
from core.errors import Refused
from core.files.formats import awq, compressed_tensors, gptq
from core.files.formats.compressed_config import packed_zeros
from core.files.formats.foreign import MODULES
from core.files.formats.layout import HEAD, Stack
from core.files.formats.parts import Part, part
from core.files.formats.scheme import Scheme
from kernels.dtypes import FLOATS

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit
    from kernels.linear_w8a8 import W8A8
    from kernels.weight import KernelWeight


def layout(contents: Contents, format: str) -> FolderLayout:
    """An engine's files in a format of others; Refused names the matrix and who can hold it."""
    check_model(contents.config, format)
    matrices = [(stack, of_weight(weight)) for stack, weight in contents.weights]
    schemes, dense = arrange(matrices, format, contents.config["tie_word_embeddings"])
    parts, notes = list(contents.plain), []
    if format == gptq.METHOD and any(_needs_v2(weight) for _, weight in contents.weights):
        schemes = {name: replace(scheme, layout=gptq.V2) for name, scheme in schemes.items()}
        notes.append(
            f"a group has the zero 0, which the first version of gptq cannot say: written as"
            f" checkpoint_format {gptq.V2}, which GPTQModel reads and older programs do not"
        )
    for stack, weight in contents.weights:
        if weight.format in FLOATS:
            parts += dense_parts(stack, weight)
        elif stack.parts[0][0] in dense:
            parts.append(_dequantized(weight))
            notes.append(
                f"awq keeps heads dense: the {weight.format} head is written as the fp16 matrix"
                " that its codes stand for"
            )
        else:
            form = _form_of(stack, weight, format)
            for begin, end, name in stack.spans():
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
    config = dict(contents.config)
    config["quantization_config"] = MODULES[format].config(schemes, dense)
    # Readers round what is loaded to this; the scales are fp16.
    config["dtype"] = "float16" if format != compressed_tensors.METHOD else config["dtype"]
    return FolderLayout(config, tuple(parts), tuple(notes))


def _form_of(stack: Stack, weight: Any, format: str) -> LowBit | W8A8:
    """A matrix in its canonical form, its numbers judged."""
    form: LowBit | W8A8 = weight.form()
    reason = MODULES[format].refuse_values(form)
    if reason is not None:
        fine = [
            name
            for name in able(of_form(form), stack)
            if name not in MODULES or MODULES[name].refuse_values(form) is None
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
    return weight.format not in FLOATS and gptq.needs_v2(weight.form())


def _dequantized(weight: KernelWeight) -> Part:
    import torch

    def make() -> Tensor:
        dense: Tensor = weight.dequantize().to(torch.float16)
        return dense

    return Part(f"{HEAD}.weight", "F16", (weight.n, weight.k), make)
