"""A low-bit matrix in the blocks of ggml, and floats as they are.

Of 32 columns each: Q4_0, Q5_0 and Q8_0 (w = d (q - middle), exactly ours), Q4_1 and Q5_1 (w = d q +
m with m = -scale * zero rounded to fp16). Wider groups repeat their scale in every block. Of 256
columns: the k-quants, where the group scales are codes that can be found again. Source: ggml,
ggml-quants.c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.files.formats.scheme import OTHER, Kept, Module
from core.files.gguf.file import TYPES, BlockType
from core.files.gguf.k_blocks import blocks_of, counting_up
from core.files.gguf.k_pack import pack as pack_super
from core.files.gguf.k_types import BLOCK, K_TYPES, SUPER
from core.files.gguf.k_unpack import unpack as unpack_super
from kernels import dtypes
from kernels.dtypes import BY_NAME, as_torch
from kernels.linear_lowbit import LowBit, LowBitWeight
from kernels.weight import KernelWeight

PLAIN = {(4, True): "Q4_0", (4, False): "Q4_1", (5, True): "Q5_0", (5, False): "Q5_1",
         (8, True): "Q8_0"}  # fmt: skip
FLOATS = {as_torch(name): BY_NAME[name].file for name in dtypes.FLOATS}
HOLDS = (
    "4, 5 and 8-bit integers in groups of multiples of 32 (8 bit without zeros), and the k-quants"
)


def type_of(form: LowBit) -> BlockType | str:
    """The block type that holds a form, or why there is none."""
    k = form.k
    if form.kind != "int":
        return f"gguf holds {HOLDS}"
    plain = PLAIN.get((form.bits, form.zero is None))
    size, zero = form.group_size, form.zero
    reason = f"gguf holds {HOLDS}"
    if size == 16 or (zero is not None and not bool((zero == zero.round()).all())):
        for name, kind in K_TYPES.items():
            if (kind.bits, kind.group, kind.minimum) == (form.bits, size, zero is not None):
                if k % SUPER:
                    reason = f"gguf holds k-quants in rows of multiples of {SUPER} columns, not {k}"
                elif blocks_of(form, name) is not None:
                    return TYPES[name.upper()]
                else:
                    reason = f"its scales are not those of {name}, which gguf would hold them in"
    if plain is not None and k % BLOCK == 0 and (size >= k or size % BLOCK == 0):
        if bool((form.scale.half().float() == form.scale).all()):
            return TYPES[plain]
        reason = "gguf holds scales of fp16"
    return reason


def refuse(kept: Kept, module: Module) -> str | None:
    """Why no block type holds a matrix that is kept so, as far as its shape says; or None."""
    k, size = module.columns, kept.group_size
    if kept.kind == OTHER or kept.inputs is not None:
        return "gguf does not know such matrices"
    if kept.kind != "int":
        return f"gguf holds {HOLDS}"
    known = (kept.bits, not kept.zero) in PLAIN
    if known and size % BLOCK == 0 and k % BLOCK == 0:
        return None if kept.scale == "fp16" else "gguf holds scales of fp16"
    wanted = (kept.bits, size, kept.zero == "any")
    if wanted in {(kind.bits, kind.group, kind.minimum) for kind in K_TYPES.values()}:
        if k % SUPER == 0:
            return None
        return f"gguf holds k-quants in rows of multiples of {SUPER} columns, not {k}"
    if known and size % BLOCK == 0:
        return f"gguf holds blocks of {BLOCK} columns, and {module.name} has {k}"
    return f"gguf holds {HOLDS}"


def pack(form: LowBit, type: BlockType) -> Any:
    """The bytes of a form that `type_of` gave this type, uint8 numpy [n, k / values * size]."""
    if type.values == SUPER:
        blocks = blocks_of(form, type.name.lower())
        assert blocks is not None
        return pack_super(blocks)
    n, k = form.n, form.k
    codes = form.codes.cpu().view(n, -1, BLOCK)
    repeat = k // BLOCK // form.groups
    scale = form.scale.cpu().repeat_interleave(repeat, dim=1)
    parts = [_halves(scale)]
    if form.zero is not None:
        parts.append(_halves(-scale * form.zero.cpu().repeat_interleave(repeat, dim=1)))
    if form.bits == 8:
        parts.append((codes.to(torch.int16) - 128).to(torch.int8).view(torch.uint8))
    else:
        if form.bits == 5:
            parts.append(_high_bits(codes >> 4))
        low = codes & 15
        parts.append(low[..., :16] | low[..., 16:] << 4)
    return torch.cat(parts, dim=2).view(n, -1).numpy()


def rounds_minimum(weight: KernelWeight) -> bool:
    """Whether Q4_1 and Q5_1 hold the groups' minimums in fewer bits than the matrix has them."""
    if not isinstance(weight, LowBitWeight):
        return False
    form = weight.form()
    if form.zero is None:
        return False
    kind = type_of(form)
    if isinstance(kind, str) or kind.values == SUPER:
        return False
    low = form.scale * form.zero
    return not bool(((low.half().float() - low).abs() <= 2**-20 * low.abs()).all())


def reordered(form: LowBit, order: Tensor) -> LowBit:
    """The rows in another order."""
    zero = None if form.zero is None else form.zero[order]
    return replace(form, codes=form.codes[order], scale=form.scale[order], zero=zero)


def collapsed(form: LowBit) -> LowBit:
    """Wider groups, to whole rows, where blocks that follow each other have the same scale: they
    were one group before they were written.
    """
    scale, zero, size = form.scale, form.zero, form.group_size
    while scale.shape[1] > 1 and scale.shape[1] * size == form.k:
        sides = [scale] if zero is None else [scale, zero]
        if all(bool((side == side[:, :1]).all()) for side in sides):
            step = scale.shape[1]
        elif scale.shape[1] % 2 == 0 and all(torch.equal(s[:, ::2], s[:, 1::2]) for s in sides):
            step = 2
        else:
            break
        scale, size = scale[:, ::step].contiguous(), size * step
        zero = None if zero is None else zero[:, ::step].contiguous()
    return replace(form, scale=scale, zero=zero, group_size=size)


def moved(form: LowBit, device: str) -> LowBit:
    """The form on a device."""
    zero = None if form.zero is None else form.zero.to(device)
    return replace(form, codes=form.codes.to(device), scale=form.scale.to(device), zero=zero)


def floats(tensor: Tensor) -> Any:
    """The bytes of floats."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _halves(values: Tensor) -> Tensor:
    """fp32 [n, blocks] -> the bytes of fp16, uint8 [n, blocks, 2]."""
    return values.half().contiguous().view(torch.uint8).view(*values.shape, 2)


def _high_bits(bits: Tensor) -> Tensor:
    """The fifth bits [n, blocks, 32] as a little-endian word, uint8 [n, blocks, 4]."""
    packed = np.packbits(bits.numpy(), axis=2, bitorder="little")
    return torch.from_numpy(packed)


def unpack(data: bytes, type: BlockType, rows: int, columns: int) -> LowBit | Tensor:
    """The reverse of `pack`: a form, or the floats of F32, F16 and BF16, [rows, columns].

    Q4_1 and Q5_1 have the zero -m / d. Raises ValueError for scales that are not finite.
    """
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    for dtype, name in FLOATS.items():
        if type.name == name:
            return raw.view(dtype).view(rows, columns)
    if type.values == SUPER:
        return unpack_super(raw.numpy().reshape(rows, -1), type.name.lower()).low_bit()
    blocks = raw.view(rows, columns // BLOCK, type.size)
    scale = blocks[..., :2].contiguous().view(torch.float16).squeeze(2).float()
    at, low = 2, None
    if type.name in ("Q4_1", "Q5_1"):
        low = blocks[..., 2:4].contiguous().view(torch.float16).squeeze(2).float()
        at = 4
    if not bool(scale.isfinite().all()) or (low is not None and not bool(low.isfinite().all())):
        raise ValueError("a scale is not finite.")
    bits = {"Q4": 4, "Q5": 5, "Q8": 8}[type.name[:2]]
    if bits == 8:
        codes = (blocks[..., at:].contiguous().view(torch.int8).to(torch.int16) + 128).to(
            torch.uint8
        )
    else:
        high = torch.zeros(rows, columns // BLOCK, BLOCK, dtype=torch.uint8)
        if bits == 5:
            word = blocks[..., at : at + 4].contiguous().numpy()
            high = torch.from_numpy(np.unpackbits(word, axis=2, bitorder="little"))
            at += 4
        nibbles = blocks[..., at:]
        codes = torch.cat([nibbles & 15, nibbles >> 4], dim=2) | high << 4
    codes = codes.reshape(rows, columns).contiguous()
    if low is None:
        return LowBit(codes, scale.contiguous(), None, bits, BLOCK)
    return counting_up(codes, scale, low, bits)
