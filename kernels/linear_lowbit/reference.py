"""The obviously right low-bit linear layer, in fp64. Tests and `bench` compare with it."""

import torch

from kernels.linear_lowbit.codes import LowBit, levels


def dequantize(form: LowBit) -> torch.Tensor:
    """The matrix [n, k] in fp64, one group after the other."""
    table = levels(form.kind)
    weight = torch.empty(form.n, form.k, dtype=torch.float64)
    zeros = form.zeros().double()
    for group in range(form.groups):
        here = slice(group * form.group_size, (group + 1) * form.group_size)
        codes = form.codes[:, here]
        values = codes.double() if table is None else table.double()[codes.long()]
        weight[:, here] = (values - zeros[:, group, None]) * form.scale.double()[:, group, None]
    return weight


def linear(x: torch.Tensor, form: LowBit, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [..., k], bias [n] or None -> y [..., n] in fp64."""
    y = x.double() @ dequantize(form).T
    return y if bias is None else y + bias.double()
