"""The obviously right FP8 product of FP8 inputs, in fp64. Tests compare with it."""

import torch

from kernels.linear_lowbit import reference as lowbit
from kernels.linear_lowbit.codes import LowBit, levels


def distance(x: torch.Tensor) -> torch.Tensor:
    """How far each number of x [M, k] is from the nearest that E4M3 times max |row| / 448 has."""
    table = levels("e4m3")
    assert table is not None
    scale = x.double().abs().amax(dim=1, keepdim=True) / 448
    return (x.double()[..., None] - table.double() * scale[..., None]).abs().amin(dim=-1)


def linear(
    x_codes: torch.Tensor, x_scale: torch.Tensor, form: LowBit, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """y fp64 [M, n] of x as E4M3 codes [M, k] and scales [M]; bias [n] or None."""
    return lowbit.linear(x_codes.double() * x_scale.double()[:, None], form, bias)
