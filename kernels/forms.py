"""The weight of a matrix in canonical form, by what kind of form it is."""

import torch

from kernels.linear_fp8 import Fp8, Fp8Weight
from kernels.linear_lowbit import LowBit, LowBitWeight
from kernels.linear_w8a8 import W8A8, W8A8Weight

Form = LowBit | W8A8
FORMED = (LowBitWeight, Fp8Weight, W8A8Weight)


def weight_of(
    form: Form, bias: torch.Tensor | None, dtype: torch.dtype
) -> LowBitWeight | Fp8Weight | W8A8Weight:
    """Laid out for the kernel that is chosen here. Raises as the weights' classes do."""
    if isinstance(form, W8A8):
        return W8A8Weight(form, bias, dtype)
    if isinstance(form, Fp8):
        return Fp8Weight(form, bias, dtype)
    return LowBitWeight(form, bias, dtype)
