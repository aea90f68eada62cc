"""The reverse of k_pack.py: k-quants of the bytes that GGUF files hold. Knows no files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.files.gguf.file import TYPES
from core.files.gguf.k_blocks import KBlocks
from core.files.gguf.k_pack import Bytes
from core.files.gguf.k_types import K_TYPES


def unpack(data: Bytes, name: str) -> KBlocks:
    """The blocks of uint8 [n, k / 256 * the type's size]. Raises ValueError for bytes of another
    number and for scales that are not finite.
    """
    n, size = len(data), TYPES[name.upper()].size
    if data.shape[1] % size:
        raise ValueError(f"rows of {data.shape[1]} bytes are no whole super-blocks of {name}.")
    blocks = data.reshape(-1, size)
    codes, scale, low, d, d_min = _UNPACK[name](blocks)
    if not np.isfinite(d).all() or (d_min is not None and not np.isfinite(d_min).all()):
        raise ValueError("a scale is not finite.")

    def by_row(values: npt.NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(dtype).reshape(n, -1)

    return KBlocks(
        K_TYPES[name],
        by_row(codes, torch.uint8),
        by_row(scale.astype(np.int16), torch.int16),
        None if low is None else by_row(low.astype(np.int16), torch.int16),
        by_row(d, torch.float32),
        None if d_min is None else by_row(d_min, torch.float32),
    )


Parts = tuple[Any, Any, Any, Any, Any]


def _q2(blocks: Bytes) -> Parts:
    side, codes = blocks[:, :16], _unfold(blocks[:, 16:80], 2, 32)
    return codes, side & 15, side >> 4, _half(blocks[:, 80:82]), _half(blocks[:, 82:84])


def _q4(blocks: Bytes) -> Parts:
    scale, low = _six_bits(blocks[:, 4:16])
    codes = _unfold(blocks[:, 16:], 4, 32)
    return codes, scale, low, _half(blocks[:, :2]), _half(blocks[:, 2:4])


def _q5(blocks: Bytes) -> Parts:
    scale, low = _six_bits(blocks[:, 4:16])
    codes = _unfold(blocks[:, 48:], 4, 32) | _unfold(blocks[:, 16:48], 1, 32) << np.uint8(4)
    return codes, scale, low, _half(blocks[:, :2]), _half(blocks[:, 2:4])


def _q3(blocks: Bytes) -> Parts:
    codes = _unfold(blocks[:, 32:96], 2, 32) | _unfold(blocks[:, :32], 1, 32) << np.uint8(2)
    six = _unfold(blocks[:, 96:104], 4, 8) | _unfold(blocks[:, 104:108], 2, 4) << np.uint8(4)
    return codes, six.astype(np.int16) - 32, None, _half(blocks[:, 108:]), None


def _q6(blocks: Bytes) -> Parts:
    codes = _unfold(blocks[:, :128], 4, 64) | _unfold(blocks[:, 128:192], 2, 32) << np.uint8(4)
    scale = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return codes, scale, None, _half(blocks[:, 208:]), None


def _unfold(data: Bytes, bits: int, inner: int) -> Bytes:
    """The reverse of k_pack's fold: bytes of `inner` columns side by side, taken apart."""
    folded = data.reshape(len(data), -1, 1, inner)
    shifts = np.arange(0, 8, bits, dtype=np.uint8).reshape(1, 1, -1, 1)
    parts: Bytes = (folded >> shifts) & np.uint8(2**bits - 1)
    return parts.reshape(len(data), -1)


def _six_bits(data: Bytes) -> tuple[Bytes, Bytes]:
    first, second, third = data[:, :4], data[:, 4:8], data[:, 8:]
    scale = np.concatenate([first & 63, (third & 15) | (first >> 6) << np.uint8(4)], axis=1)
    low = np.concatenate([second & 63, (third >> 4) | (second >> 6) << np.uint8(4)], axis=1)
    return scale, low


def _half(data: Bytes) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


_UNPACK = {"q2_k": _q2, "q3_k": _q3, "q4_k": _q4, "q5_k": _q5, "q6_k": _q6}
