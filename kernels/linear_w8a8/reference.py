"""The obviously right int8 product of int8 inputs, in int64 and fp64. Tests compare with it."""

import torch

from kernels.linear_w8a8.codes import W8A8


def quantize_rows(x: torch.Tensor, x_scale: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes int64 [M, k] and scales fp64 [M], one number at a time."""
    codes = torch.zeros(x.shape, dtype=torch.int64)
    scales = torch.zeros(len(x), dtype=torch.float64)
    for m, row in enumerate(x.double().tolist()):
        scale = x_scale if x_scale is not None else max(map(abs, row)) / 127
        scales[m] = scale
        for j, value in enumerate(row if scale > 0 else []):
            codes[m, j] = max(-127, min(127, round(value / scale)))
    return codes, scales


def product(x_codes: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The exact int64 [M, n] of codes [M, k] and [n, k]."""
    return x_codes.long() @ codes.long().T


def linear(
    x_codes: torch.Tensor, x_scales: torch.Tensor, form: W8A8, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """fp64 [M, n] of x as codes [M, k] and scales [M]; the columns apart are zero in them."""
    sums = product(x_codes, form.codes).double()
    y = sums * x_scales.double()[:, None] * form.scale.double()
    return y if bias is None else y + bias.double()
