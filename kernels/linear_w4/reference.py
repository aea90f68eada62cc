"""The obviously right 4-bit group-wise linear layer, in fp64. Tests and `bench` compare with it."""

import torch


def dequantize(
    codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, group_size: int
) -> torch.Tensor:
    """codes [N, K] in 0..15, scale and zero [N, ceil(K / group)] -> weight [N, K] in fp64.

    weight = (code - 8) * scale + zero, scale and zero of the code's group along K.
    """
    n, k = codes.shape
    weight = torch.empty(n, k, dtype=torch.float64)
    for column in range(k):
        group = column // group_size
        steps = codes[:, column].double() - 8
        weight[:, column] = steps * scale[:, group].double() + zero[:, group].double()
    return weight


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [..., K], a dequantized weight [N, K], bias [N] or None -> y [..., N] in fp64."""
    y = torch.einsum("...k,nk->...n", x.double(), weight.double())
    return y if bias is None else y + bias.double()
