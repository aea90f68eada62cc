"""Dense bit streams in int32 words, against Python's integers."""

from __future__ import annotations

import pytest
import torch

from core.files.formats import words


def by_hand(row: list[int], bits: int) -> list[int]:
    """The words of one row: one long number, cut into 32 bits at a time."""
    stream = sum(code << (i * bits) for i, code in enumerate(row))
    count = -(-len(row) * bits // 32)
    found = [(stream >> (32 * i)) & 0xFFFFFFFF for i in range(count)]
    return [word - (1 << 32) if word >= 1 << 31 else word for word in found]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [1, 7, 32, 33, 100])
def test_words_are_one_stream_of_bits(bits: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(bits * 1000 + columns)
    codes = torch.randint(0, 2**bits, (3, columns), generator=generator).to(torch.uint8)
    codes[1] = 2**bits - 1
    packed = words.pack(codes, bits)
    assert packed.dtype is torch.int32
    assert packed.tolist() == [by_hand(row, bits) for row in codes.tolist()]
    assert torch.equal(words.unpack(packed, bits, columns), codes)
