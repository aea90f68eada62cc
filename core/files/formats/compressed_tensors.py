"""The layouts of compressed-tensors (vLLM, llm-compressor, transformers), packed along the input.

Of a matrix [n, k] under NAME, "pack-quantized": weight_packed int32 [n, ceil(k * bits / 32)], a
dense stream of bits; weight_scale [n, groups]; weight_zero_point int32 [ceil(n * bits / 32),
groups], along n, where it is affine; weight_shape int64 [2]. "int-quantized": weight int8 [n, k]
and weight_scale [n, 1]; with int8 inputs by one scale, input_scale [1]. "float-quantized": weight
float8_e4m3 [n, k] and weight_scale [n, 1], inputs in E4M3 by token or in 16 bit. weight[i, j] =
scale * (code - zero), codes and zeros signed. Source: the package compressed-tensors, compressors/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.errors import BadInput
from core.files.formats.compressed_config import BITS, FLOAT8, INT8, METHOD, PACKED, config, schemes
from core.files.formats.native import Shapes
from core.files.formats.parts import Part, part
from core.files.formats.scheme import Kept, Module, Scheme, whole_groups

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit
    from kernels.linear_w8a8 import W8A8

__all__ = [
    "METHOD",
    "PACKED",
    "config",
    "expected",
    "parts",
    "read",
    "refuse",
    "refuse_values",
    "scheme_of",
    "schemes",
]

HOLDS = (
    "integers of 2, 4 or 8 bit with whole zeros in whole groups, int8 and e4m3 by row, with inputs"
    " of 16 or 8 bit"
)
_SCALES = ("F32", "F16", "BF16")


def refuse(kept: Kept, module: Module) -> str | None:
    """Why the layout cannot hold a matrix of this shape, or None."""
    if kept.kind == "w8a8":
        return None
    if kept.kind == "e4m3" and not (kept.group_size or kept.zero) and kept.scale != "u8":
        return None
    if kept.kind != "int" or kept.bits not in BITS or kept.scale == "u8":
        return f"compressed-tensors holds {HOLDS}"
    if kept.zero == "any":
        return f"compressed-tensors holds whole zeros from 0 to {2**kept.bits - 1}"
    return whole_groups(METHOD, kept.group_size, module)


def refuse_values(form: LowBit | W8A8) -> str | None:
    """Why the layout cannot hold these numbers of a matrix that `refuse` accepts, or None."""
    zeros = getattr(form, "zero", None)
    most = 2 ** getattr(form, "bits", 8) - 1
    if zeros is not None and bool(((zeros < 0) | (zeros > most)).any()):
        return f"compressed-tensors holds whole zeros from 0 to {most}"
    return None


def scheme_of(kept: Kept) -> Scheme:
    """How a matrix that `refuse` accepts is stored."""
    if kept.kind == "w8a8":
        return Scheme(8, 0, True, INT8, kept.inputs)
    if kept.kind == "e4m3":
        return Scheme(8, 0, True, FLOAT8, kept.inputs)
    if kept.bits == 8 and not kept.group_size and not kept.zero:
        return Scheme(8, 0, True, INT8)
    return Scheme(kept.bits, kept.group_size, not kept.zero, PACKED)


def expected(module: Module, scheme: Scheme) -> Shapes:
    """Dtypes and shape of a module's tensors."""
    name, n, k = module.name, module.rows, module.columns
    wanted: Shapes = {f"{name}.weight_scale": (_SCALES, (n, scheme.groups(k)))}
    if scheme.layout == PACKED:
        wanted[f"{name}.weight_packed"] = (("I32",), (n, -(-k * scheme.bits // 32)))
        wanted[f"{name}.weight_shape"] = (("I64", "I32"), (2,))
        if not scheme.symmetric:
            shape = (-(-n * scheme.bits // 32), scheme.groups(k))
            wanted[f"{name}.weight_zero_point"] = (("I32",), shape)
    else:
        wanted[f"{name}.weight"] = (("I8",) if scheme.layout == INT8 else ("F8_E4M3",), (n, k))
    if scheme.inputs == "static":
        wanted[f"{name}.input_scale"] = (_SCALES, (1,))
    return wanted


def parts(
    name: str, form: LowBit | W8A8, codes: Callable[[], Tensor], scheme: Scheme
) -> list[Part]:
    """The tensors of a form that `refuse` accepts; `codes` gives its codes [n, k] again."""
    import torch

    from core.files.formats import words
    from kernels.linear_w8a8 import W8A8

    n, k, bits = form.n, form.k, scheme.bits
    if isinstance(form, W8A8):
        tensors = [
            Part(f"{name}.weight", "I8", (n, k), codes),
            part(f"{name}.weight_scale", form.scale[:, None].contiguous()),
        ]
        if form.x_scale is not None:
            tensors.append(part(f"{name}.input_scale", torch.tensor([form.x_scale])))
        return tensors
    dtype = torch.float16 if form.scale_format == "fp16" else torch.float32
    tensors = [part(f"{name}.weight_scale", form.scale.to(dtype))]
    if scheme.layout == FLOAT8:
        float8 = torch.float8_e4m3fn
        tensors.append(Part(f"{name}.weight", "F8_E4M3", (n, k), lambda: codes().view(float8)))
    elif scheme.layout == INT8:
        tensors.append(Part(f"{name}.weight", "I8", (n, k), lambda: _signed(codes())))
    else:
        shape = (n, words.count(k, bits))
        tensors.append(
            Part(f"{name}.weight_packed", "I32", shape, lambda: words.pack(codes(), bits))
        )
        tensors.append(part(f"{name}.weight_shape", torch.tensor([n, k])))
        if form.zero is not None:
            zeros = words.pack(form.zero.T.contiguous().to(torch.uint8), bits).T.contiguous()
            tensors.append(part(f"{name}.weight_zero_point", zeros))
    return tensors


def read(module: Module, scheme: Scheme, get: Callable[[str], Tensor]) -> LowBit | W8A8:
    """The canonical form of a module; BadInput for values that no sound file has."""
    import torch

    from core.files.formats import words
    from core.files.formats.sound import check_scales, finite
    from kernels.linear_fp8 import Fp8
    from kernels.linear_lowbit import LowBit
    from kernels.linear_w8a8 import W8A8

    name, k, bits = module.name, module.columns, scheme.bits
    scale = finite(f"{name}.weight_scale", get(f"{name}.weight_scale"))
    check_scales(f"{name}.weight_scale", scale)
    format = "fp16" if scale.dtype is torch.float16 else "fp32"
    scale = scale.float()
    if scheme.inputs is not None and scheme.layout == INT8:
        x_scale = None
        if scheme.inputs == "static":
            x_scale = float(finite(f"{name}.input_scale", get(f"{name}.input_scale")))
        return W8A8(get(f"{name}.weight"), scale[:, 0].contiguous(), x_scale)
    zero = None
    if scheme.layout == FLOAT8:
        codes = get(f"{name}.weight").view(torch.uint8)
        if bool(((codes & 127) == 127).any()):
            raise BadInput(f"the tensor {name}.weight holds values that are not finite.")
        kind = LowBit if scheme.inputs is None else Fp8
        return kind(codes, scale, None, 8, k, "e4m3", format)
    if scheme.layout == INT8:
        codes = (get(f"{name}.weight").to(torch.int16) + 128).to(torch.uint8)
    else:
        shape = get(f"{name}.weight_shape").tolist()
        if shape != [module.rows, k]:
            raise BadInput(f"the tensor {name}.weight_shape says {shape}, not {[module.rows, k]}.")
        codes = words.unpack(get(f"{name}.weight_packed"), bits, k)
        if not scheme.symmetric:
            packed = get(f"{name}.weight_zero_point").T.contiguous()
            zero = words.unpack(packed, bits, module.rows).T.contiguous().float()
    return LowBit(codes, scale, zero, bits, scheme.group_size or k, "int", format)


def _signed(codes: Tensor) -> Tensor:
    import torch

    return (codes.to(torch.int16) - 128).to(torch.int8)
