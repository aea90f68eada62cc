"""The k-quants of ggml and the plain blocks that stand in for them: their geometry, without torch.

Super-blocks of 256 weights whose group scales are themselves codes of few bits (Kawrakow 2023,
llama.cpp pull request 1684):

    Q2_K  16 weights a group  w = d s q - m t   q 0..3,   s and m of 4 bits
    Q3_K  16                  w = d s q         q -4..3,  s of 6 bits with sign
    Q4_K  32                  w = d s q - m t   q 0..15,  s and m of 6 bits
    Q5_K  32                  w = d s q - m t   q 0..31,  s and m of 6 bits
    Q6_K  16                  w = d s q         q -32..31, s of 8 bits with sign

with d and t in fp16 for each super-block.
"""

from __future__ import annotations

from dataclasses import dataclass

# Columns of a super-block, and of a plain block.
SUPER, BLOCK = 256, 32
# What llama.cpp takes for rows that are no whole super-blocks.
FALLBACK = {"q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
# Stands for rows that are not whole blocks either.
DENSE = "floats"


@dataclass(frozen=True)
class KType:
    """`bits` a code, `group` weights that share a scale, `scale_bits` of a scale. With `minimum`
    codes count up from it, else from the middle.
    """

    name: str
    bits: int
    group: int
    scale_bits: int
    minimum: bool


K_TYPES = {
    kind.name: kind
    for kind in (
        KType("q2_k", 2, 16, 4, True),
        KType("q3_k", 3, 16, 6, False),
        KType("q4_k", 4, 32, 6, True),
        KType("q5_k", 5, 32, 6, True),
        KType("q6_k", 6, 16, 8, False),
    )
}


def fitting(type_: str, columns: int) -> str:
    """The type in which rows of so many columns are kept: `type_`, else llama.cpp's fallback in
    blocks of 32, else DENSE (tensor_type_fallback in its llama-quant.cpp).
    """
    if columns % SUPER == 0:
        return type_
    return DENSE if columns % BLOCK else FALLBACK[type_]
