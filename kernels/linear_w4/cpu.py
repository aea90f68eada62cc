"""Binding of torch's packed int4 product for the CPU, `_weight_int4pack_mm_for_cpu`.

Found by trying, torch 2.13: N must be a multiple of 16, K of the group; groups of 32, 64, 128, 256;
x, scale and zero share one dtype (bf16, fp16, fp32); value = (code - 8) * scale + zero. The packed
bytes depend on the processor's vector width, so they are never written to a file: QuantizedW4 is.
"""

import torch
from torch.nn.functional import pad

from kernels.linear_w4.codes import QuantizedW4, pack_nibbles

N_MULTIPLE = 16
# Rows converted at a time: torch wants 32-bit codes, eight times the packed size. Whole blocks
# of 64 rows pack independently of each other.
CHUNK_ROWS = 2048


def available() -> str | None:
    """None, or the sentence why this torch cannot do it."""
    names = ("_convert_weight_to_int4pack_for_cpu", "_weight_int4pack_mm_for_cpu")
    missing = [name for name in names if not hasattr(torch.ops.aten, name)]
    if missing:
        return f"needs torch's {' and '.join(missing)}, which torch {torch.__version__} lacks"
    return None


def lay_out(quantized: QuantizedW4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (packed uint8 [N, K / 2], scale and zero [K / group, N, 2]), N rounded up to 16."""
    extra = -quantized.n % N_MULTIPLE
    chunks = []
    for start in range(0, quantized.n, CHUNK_ROWS):
        rows = quantized.nibbles[start : start + CHUNK_ROWS]
        codes = torch.stack((rows & 15, rows >> 4), dim=2).view(len(rows), -1).int()
        if start + CHUNK_ROWS >= quantized.n:
            codes = pad(codes, (0, 0, 0, extra), value=8)
        chunks.append(torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1))
    scale_zero = torch.stack((quantized.scale.t(), quantized.zero.t()), dim=2)
    return torch.cat(chunks), pad(scale_zero, (0, 0, 0, extra)).contiguous()


def undo(
    packed: torch.Tensor, scale_zero: torch.Tensor, n: int, k: int, group_size: int
) -> QuantizedW4:
    """The canonical form back from the packed one, exactly.

    The byte order inside differs between processors, so the codes are read with the product
    itself: unit scales and zeros of 8 make a row of the identity return one column of codes.
    """
    columns = packed.shape[1] * 2
    units = torch.ones(scale_zero.shape, dtype=torch.float32)
    units[..., 1] = 8
    nibbles = torch.empty(n, columns // 2, dtype=torch.uint8)
    for start in range(0, columns, group_size):
        rows = torch.zeros(group_size, columns)
        rows[:, start : start + group_size] = torch.eye(group_size)
        codes = matmul(rows, packed, units, group_size)[:, :n].t().round().to(torch.uint8)
        nibbles[:, start // 2 : (start + group_size) // 2] = pack_nibbles(codes)
    scale, zero = scale_zero[:, :n].permute(2, 1, 0).contiguous().unbind(0)
    return QuantizedW4(nibbles, scale, zero, n, k, group_size)


def matmul(
    x: torch.Tensor, packed: torch.Tensor, scale_zero: torch.Tensor, group_size: int
) -> torch.Tensor:
    """x [M, K] contiguous, in the dtype of scale_zero -> y [M, N padded]."""
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group_size, scale_zero)
