"""The GPTQ layout of AutoGPTQ and GPTQModel: codes packed along the input, fp16 scales.

Of a matrix [n, k] under NAME: qweight int32 [k * bits / 32, n], a dense stream of bits down each
column; qzeros int32 [groups, n * bits / 32], along n, each zero less 1 (checkpoint_format "gptq",
version 1) or as it is ("gptq_v2"); scales fp16 [groups, n]; g_idx int32 [k], the group of each
column. weight[i, j] = scales[g, i] * (code - zero). Source: AutoGPTQ, nn_modules/qlinear.
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
    empty,
    flag,
    group,
    whole,
    whole_groups,
)

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit

METHOD = "gptq"
BITS = (2, 3, 4, 8)
# Code widths that do not fill an int32 evenly go by 32 codes to as many words as they have bits.
PACK = {2: 16, 3: 32, 4: 8, 8: 4}
V1, V2 = "gptq", "gptq_v2"
HOLDS = "integers of 2, 3, 4 or 8 bit with fp16 scales and whole zeros, all matrices alike"


def refuse(kept: Kept, module: Module) -> str | None:
    """Why the layout cannot hold a matrix of this shape, or None."""
    if kept.kind != "int" or kept.bits not in BITS or kept.scale != "fp16" or kept.zero == "any":
        return f"gptq holds {HOLDS}"
    pack = PACK[kept.bits]
    if module.columns % pack or module.rows % pack:
        return (
            f"gptq packs {pack} codes of {kept.bits} bit at a time along rows and columns, and"
            f" {module.name} has {module.rows} rows of {module.columns}"
        )
    return whole_groups(METHOD, kept.group_size, module)


def refuse_values(form: LowBit) -> str | None:
    """Why the layout cannot hold these numbers of a matrix that `refuse` accepts, or None."""
    most = 2**form.bits - 1
    if form.zero is not None and bool(((form.zero < 0) | (form.zero > most)).any()):
        return f"gptq holds whole zeros from 0 to {most}"
    return None


def needs_v2(form: LowBit) -> bool:
    """Whether a group that is not nothing has the zero 0, which version 1 has no place for."""
    return form.zero is not None and bool((form.zero[form.scale != 0] < 1).any())


def config(schemes: Mapping[str, Scheme], dense: Sequence[str]) -> dict[str, Any]:
    """quantization_config of matrices that are all alike; Refused when they are not."""
    kinds = {(scheme.bits, scheme.group_size) for scheme in schemes.values()}
    if len(kinds) > 1 or [name for name in dense if name != "lm_head"]:
        raise Refused(
            "gptq holds one width and one group size for all matrices (the head alone may stay"
            " dense); formats that hold others: trimtab, compressed-tensors"
        )
    bits, size = next(iter(kinds))
    return {
        "quant_method": METHOD,
        "bits": bits,
        "group_size": size or -1,
        "sym": all(scheme.symmetric for scheme in schemes.values()),
        "desc_act": False,
        "static_groups": False,
        "true_sequential": True,
        "damp_percent": 0.01,
        "lm_head": "lm_head" in schemes,
        "checkpoint_format": V2 if any(scheme.layout == V2 for scheme in schemes.values()) else V1,
    }


def schemes(settings: Mapping[str, Any], modules: Sequence[Module]) -> dict[str, Scheme]:
    """The scheme of every quantized module of a checked quantization_config."""
    bits = whole(settings, "bits", BITS)
    format = settings.get("checkpoint_format", settings.get("format")) or V1
    if format not in (V1, V2):
        raise BadInput(f"{WHERE}.checkpoint_format must be {V1} or {V2}, not {format!r:.40}.")
    empty(settings, "dynamic", "modules_in_block_to_quantize", "modules_to_not_convert", "rotation")
    symmetric = flag(settings, "sym", default=True)
    flag(settings, "desc_act", default=False)
    scheme = Scheme(bits, group(settings), symmetric, format)
    with_head = flag(settings, "lm_head", default=False)
    quantized = {}
    for module in modules:
        if module.name != "lm_head" or with_head:
            check_divides(module, scheme, PACK[bits], PACK[bits])
            quantized[module.name] = scheme
    return quantized


def expected(module: Module, scheme: Scheme) -> Shapes:
    """Dtypes and shape of a module's tensors."""
    name, n, k = module.name, module.rows, module.columns
    groups = scheme.groups(k)
    return {
        f"{name}.qweight": (("I32",), (k * scheme.bits // 32, n)),
        f"{name}.qzeros": (("I32",), (groups, n * scheme.bits // 32)),
        f"{name}.scales": (("F16", "BF16", "F32"), (groups, n)),
        f"{name}.g_idx": (("I32",), (k,)),
    }


def parts(name: str, form: LowBit, codes: Callable[[], Tensor], version: str = V1) -> list[Part]:
    """The tensors of a form that `refuse` accepts; `codes` gives its uint8 codes [n, k] again."""
    import torch

    from core.files.formats import words

    n, k, bits = form.n, form.k, form.bits
    size = min(form.group_size, k)
    # A group of zeros may have the zero 0, which has no place in version 1; 0 times anything is 0.
    zeros = torch.where(form.scale != 0, form.zeros(), torch.ones_like(form.scale))
    stored = (zeros.T.contiguous() - int(version == V1)).to(torch.uint8)

    def qweight() -> Tensor:
        return words.pack(codes(), bits).T.contiguous()

    return [
        Part(f"{name}.qweight", "I32", (k * bits // 32, n), qweight),
        part(f"{name}.qzeros", words.pack(stored, bits)),
        part(f"{name}.scales", form.scale.T.half().contiguous()),
        part(f"{name}.g_idx", (torch.arange(k) // size).to(torch.int32)),
    ]


def read(module: Module, scheme: Scheme, get: Callable[[str], Tensor]) -> LowBit:
    """The canonical form of a module; BadInput for values that no sound file has."""
    import torch

    from core.files.formats import words
    from core.files.formats.sound import check_scales, finite
    from kernels.linear_lowbit import LowBit

    name, k, bits = module.name, module.columns, scheme.bits
    size = scheme.group_size or k
    if not torch.equal(get(f"{name}.g_idx").long(), torch.arange(k) // size):
        raise BadInput(
            f"the tensor {name}.g_idx puts the columns into groups in another order (desc_act),"
            " which no kernel here follows; quantize with static groups."
        )
    codes = words.unpack(get(f"{name}.qweight").T.contiguous(), bits, k)
    scale = finite(f"{name}.scales", get(f"{name}.scales")).T.contiguous()
    check_scales(f"{name}.scales", scale)
    zero = words.unpack(get(f"{name}.qzeros"), bits, module.rows).T.contiguous()
    if scheme.layout == V1:
        # AutoGPTQ's own reader lets the sum wrap around.
        zero = (zero.int() + 1) & (2**bits - 1)
    centre = 2 ** (bits - 1)
    same = scheme.symmetric and bool((zero == centre)[scale != 0].all())
    format = "fp16" if scale.dtype is torch.float16 else "fp32"
    return LowBit(codes, scale.float(), None if same else zero.float(), bits, size, "int", format)
