"""The AWQ layout of AutoAWQ, version "gemm": 4-bit codes packed along the output.

Of a matrix [n, k] under NAME: qweight int32 [k, n / 8], qzeros int32 [groups, n / 8], nibble i of a
word being the column 8 w + ORDER[i]; scales fp16 [groups, n]. weight[i, j] = scales[g, i] * (code -
zero). Source: AutoAWQ, awq/modules/linear/gemm.py. Heads stay dense there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import BadInput, Refused
from core.files.formats.native import Shapes
from core.files.formats.parts import Part, part
from core.files.formats.scheme import (
    WHERE,
    Kept,
    Module,
    Scheme,
    check_divides,
    flag,
    group,
    whole,
    whole_groups,
    words,
)

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit

METHOD = "awq"
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PACK = 8
HOLDS = "4-bit integers with fp16 scales and whole zeros, all matrices alike"


def refuse(kept: Kept, module: Module) -> str | None:
    """Why the layout cannot hold a matrix of this shape, or None."""
    if kept.kind != "int" or kept.bits != 4 or kept.scale != "fp16" or kept.zero == "any":
        return f"awq holds {HOLDS}"
    if module.rows % PACK:
        return (
            f"awq packs {PACK} rows at a time, and {module.name} has {module.rows} rows of"
            f" {module.columns}"
        )
    return whole_groups(METHOD, kept.group_size, module)


def refuse_values(form: LowBit) -> str | None:
    """Why the layout cannot hold these numbers of a matrix that `refuse` accepts, or None."""
    if form.zero is not None and bool(((form.zero < 0) | (form.zero > 15)).any()):
        return "awq holds whole zeros from 0 to 15"
    return None


def config(schemes: Mapping[str, Scheme], dense: Sequence[str]) -> dict[str, Any]:
    """quantization_config of matrices that are all alike; Refused when they are not."""
    kinds = {scheme.group_size for scheme in schemes.values()}
    if len(kinds) > 1:
        raise Refused(
            "awq holds one group size for all matrices; formats that hold others: trimtab,"
            " compressed-tensors"
        )
    return {
        "quant_method": METHOD,
        "bits": 4,
        "group_size": next(iter(kinds)) or -1,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": list(dense) or None,
    }


def schemes(settings: Mapping[str, Any], modules: Sequence[Module]) -> dict[str, Scheme]:
    """The scheme of every quantized module of a checked quantization_config."""
    whole(settings, "bits", (4,))
    version = settings.get("version", "gemm")
    if not isinstance(version, str) or version.lower() != "gemm":
        raise BadInput(f"{WHERE}.version must be gemm, not {version!r:.40}.")
    if not flag(settings, "zero_point", default=True):
        raise BadInput(f"{WHERE}.zero_point must be true.")
    scheme = Scheme(4, group(settings), symmetric=False)
    dense = words(settings, "modules_to_not_convert")
    quantized = {}
    for module in modules:
        # As transformers does: a word anywhere in the name keeps a module dense.
        if module.name != "lm_head" and not any(word in module.name for word in dense):
            check_divides(module, scheme, 1, PACK)
            quantized[module.name] = scheme
    if not quantized:
        raise BadInput(f"{WHERE}.modules_to_not_convert leaves nothing that is quantized.")
    return quantized


def expected(module: Module, scheme: Scheme) -> Shapes:
    """Dtypes and shape of a module's tensors."""
    name, n, k = module.name, module.rows, module.columns
    groups = scheme.groups(k)
    return {
        f"{name}.qweight": (("I32",), (k, n // PACK)),
        f"{name}.qzeros": (("I32",), (groups, n // PACK)),
        f"{name}.scales": (("F16", "BF16", "F32"), (groups, n)),
    }


def parts(name: str, form: LowBit, codes: Callable[[], Tensor]) -> list[Part]:
    """The tensors of a form that `refuse` accepts; `codes` gives its uint8 codes [n, k] again."""
    import torch

    n, k = form.n, form.k
    zeros = form.zeros().T.to(torch.uint8)
    return [
        Part(f"{name}.qweight", "I32", (k, n // PACK), lambda: _pack(codes().T)),
        part(f"{name}.qzeros", _pack(zeros)),
        part(f"{name}.scales", form.scale.T.half().contiguous()),
    ]


def read(module: Module, scheme: Scheme, get: Callable[[str], Tensor]) -> LowBit:
    """The canonical form of a module; BadInput for values that no sound file has."""
    import torch

    from core.files.formats.sound import check_scales, finite
    from kernels.linear_lowbit import LowBit

    name, k = module.name, module.columns
    scale = finite(f"{name}.scales", get(f"{name}.scales")).T.contiguous()
    check_scales(f"{name}.scales", scale)
    codes = _unpack(get(f"{name}.qweight")).T.contiguous()
    zero = _unpack(get(f"{name}.qzeros")).T.contiguous()
    same = bool((zero == 8).all())
    format = "fp16" if scale.dtype is torch.float16 else "fp32"
    size = scheme.group_size or k
    return LowBit(codes, scale.float(), None if same else zero.float(), 4, size, "int", format)


def _pack(codes: Tensor) -> Tensor:
    """uint8 [r, n] -> int32 [r, n / 8] in AutoAWQ's order of nibbles."""
    from core.files.formats import words

    ordered = codes.reshape(codes.shape[0], -1, PACK)[..., list(ORDER)]
    return words.pack(ordered.reshape(codes.shape).contiguous(), 4)


def _unpack(packed: Tensor) -> Tensor:
    """The reverse of _pack."""
    from core.files.formats import words

    rows, columns = packed.shape[0], packed.shape[1] * PACK
    back = [ORDER.index(i) for i in range(PACK)]
    codes = words.unpack(packed, 4, columns).view(rows, -1, PACK)[..., back]
    return codes.reshape(rows, columns)
