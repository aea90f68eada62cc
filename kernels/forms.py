"""The weight of a matrix in canonical form, by the operation that the form belongs to."""

import torch

from kernels.linear_fp8 import Fp8Weight
from kernels.linear_lowbit import LowBit, LowBitWeight
from kernels.linear_w8a8 import W8A8, W8A8Weight

FORMED = (LowBitWeight, Fp8Weight, W8A8Weight)
_BY_OP = {kind.op: kind for kind in FORMED}


def weight_of(
    form: LowBit | W8A8, bias: torch.Tensor | None, dtype: torch.dtype
) -> LowBitWeight | Fp8Weight | W8A8Weight:
    """Laid out for the kernel that is chosen here. Raises as the weights' classes do."""
    return _BY_OP[form.op](form, bias, dtype)
