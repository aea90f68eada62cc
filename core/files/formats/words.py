"""Codes of 2 to 8 bit as a dense stream of bits in int32 words, as most of the others' files have
them: code i of a row begins at bit i * bits, the lowest bit first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

TURN = 32


def count(codes: int, bits: int) -> int:
    """Words that a row of `codes` codes takes."""
    return -(-codes * bits // TURN)


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes [r, m] -> int32 [r, ceil(m * bits / 32)]."""
    rows, columns = codes.shape
    turns = pad(codes, (0, -columns % TURN)).view(rows, -1, TURN)
    words = torch.zeros(rows, turns.shape[1], bits, dtype=torch.int64, device=codes.device)
    for i in range(TURN):
        word, begin = divmod(i * bits, TURN)
        code = turns[..., i].long()
        words[..., word] |= (code << begin) & 0xFFFFFFFF
        if begin + bits > TURN:
            words[..., word + 1] |= code >> (TURN - begin)
    # The upper half of the unsigned words is int32's negative half.
    words = torch.where(words >= 1 << 31, words - (1 << 32), words)
    return words.to(torch.int32).view(rows, -1)[:, : count(columns, bits)].contiguous()


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """The reverse of pack: uint8 codes [r, columns]."""
    rows = words.shape[0]
    whole = pad(words, (0, -words.shape[1] % bits)).view(rows, -1, bits).long() & 0xFFFFFFFF
    codes = torch.empty(rows, whole.shape[1], TURN, dtype=torch.uint8, device=words.device)
    for i in range(TURN):
        word, begin = divmod(i * bits, TURN)
        code = whole[..., word] >> begin
        if begin + bits > TURN:
            code |= whole[..., word + 1] << (TURN - begin)
        codes[..., i] = (code & (2**bits - 1)).to(torch.uint8)
    return codes.view(rows, -1)[:, :columns].contiguous()
