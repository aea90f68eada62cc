"""Binding of torch's packed int8 product for the CPU, `torch._weight_int8pack_mm`.

Found by trying, torch 2.13: x and scale share one dtype (bf16, fp16 or fp32); M and N are free;
K that is not a multiple of 16 ends the process with a segmentation fault, so packing pads K.
"""

import torch

K_MULTIPLE = 32


def available() -> str | None:
    """None, or the sentence why this torch cannot do it."""
    if hasattr(torch, "_weight_int8pack_mm"):
        return None
    return f"needs torch._weight_int8pack_mm, which torch {torch.__version__} does not have"


def matmul(x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x [M, K] contiguous, codes int8 [N, K], scale [N] of x's dtype -> [M, N]; K % 32 == 0."""
    return torch._weight_int8pack_mm(x, codes, scale)
