"""The bytes of k-quants as GGUF files hold them, of whole super-blocks. Knows no files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from core.files.gguf.k_blocks import KBlocks
from core.files.gguf.k_types import SUPER

Bytes = npt.NDArray[np.uint8]


def pack(blocks: KBlocks) -> Bytes:
    """uint8 [n, k / 256 * the type's size]. Raises ValueError when k is no multiple of 256."""
    n, k = blocks.codes.shape
    if k % SUPER:
        raise ValueError(f"rows of {k} weights are no whole super-blocks of {SUPER}.")
    codes = blocks.codes.numpy().reshape(-1, SUPER)
    scale = blocks.scale.numpy().reshape(len(codes), -1)
    d = blocks.d.numpy().astype("<f2").reshape(-1, 1).view(np.uint8)
    if blocks.minimum is None or blocks.d_min is None:
        parts = _PACK_CENTRED[blocks.type.name](codes, scale, d)
    else:
        low = blocks.minimum.numpy().reshape(len(codes), -1).astype(np.uint8)
        d_min = blocks.d_min.numpy().astype("<f2").reshape(-1, 1).view(np.uint8)
        name = blocks.type.name
        parts = _PACK_AFFINE[name](codes, scale.astype(np.uint8), low, d, d_min)
    return np.concatenate(parts, axis=1).reshape(n, -1)


def _fold(codes: npt.NDArray[Any], bits: int, inner: int) -> Bytes:
    """Bytes of `inner` columns side by side, each with 8 / bits values `inner` columns apart."""
    each = 8 // bits
    parts = codes.reshape(len(codes), -1, each, inner).astype(np.uint8)
    folded = parts[:, :, 0].copy()
    for place in range(1, each):
        folded |= parts[:, :, place] << np.uint8(place * bits)
    return folded.reshape(len(codes), -1)


def _q2(codes: Bytes, scale: Bytes, low: Bytes, d: Bytes, d_min: Bytes) -> list[Bytes]:
    return [scale | low << np.uint8(4), _fold(codes, 2, 32), d, d_min]


def _q4(codes: Bytes, scale: Bytes, low: Bytes, d: Bytes, d_min: Bytes) -> list[Bytes]:
    return [d, d_min, _six_bits(scale, low), _fold(codes, 4, 32)]


def _q5(codes: Bytes, scale: Bytes, low: Bytes, d: Bytes, d_min: Bytes) -> list[Bytes]:
    high = _fold(codes >> 4, 1, 32)
    return [d, d_min, _six_bits(scale, low), high, _fold(codes & 15, 4, 32)]


def _q3(codes: Bytes, scale: npt.NDArray[np.int16], d: Bytes) -> list[Bytes]:
    six = (scale + 32).astype(np.uint8)
    scales = [_fold(six & 15, 4, 8), _fold(six >> 4, 2, 4)]
    return [_fold(codes >> 2, 1, 32), _fold(codes & 3, 2, 32), *scales, d]


def _q6(codes: Bytes, scale: npt.NDArray[np.int16], d: Bytes) -> list[Bytes]:
    return [
        _fold(codes & 15, 4, 64),
        _fold(codes >> 4, 2, 32),
        scale.astype(np.int8).view(np.uint8),
        d,
    ]


def _six_bits(scale: Bytes, low: Bytes) -> Bytes:
    """12 bytes of 8 scales and 8 minimums: the first four of each whole, beside them the two high
    bits of the last four, and then the low four bits of those.
    """
    first = scale[:, :4] | (scale[:, 4:] >> 4) << np.uint8(6)
    second = low[:, :4] | (low[:, 4:] >> 4) << np.uint8(6)
    third = (scale[:, 4:] & 15) | (low[:, 4:] & 15) << np.uint8(4)
    return np.concatenate([first, second, third], axis=1)


_PACK_AFFINE = {"q2_k": _q2, "q4_k": _q4, "q5_k": _q5}
_PACK_CENTRED = {"q3_k": _q3, "q6_k": _q6}
