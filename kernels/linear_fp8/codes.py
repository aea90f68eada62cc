"""Rounding of x to E4M3, a scale for each row, as every kernel of linear_fp8 repeats it.

The weight's form is LowBit of kind "e4m3" with one scale a row (kernels.linear_lowbit).
"""

import torch

# The largest finite E4M3 number.
MOST = 448.0
# A row of x below this is zero: 448 / max would be infinite.
TINY = 1e-30


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [M, k] -> float8_e4m3fn [M, k] and scales fp32 [M]: max |row| / 448.

    NaN and infinity make the row's codes 0 and its scale NaN.
    """
    exact = x.float()
    most = exact.abs().amax(dim=1)
    # Tensors on both sides: torch divides a number by a tensor with a rounded reciprocal.
    steps = torch.full_like(most, MOST)
    inverse = torch.where(most >= TINY, steps / most, torch.zeros_like(most))
    finite = most.isfinite()
    inverse = torch.where(finite, inverse, torch.zeros_like(inverse))
    codes = (exact * inverse[:, None]).clamp_(-MOST, MOST).nan_to_num_(0)
    scale = torch.where(finite, most / steps, torch.full_like(most, float("nan")))
    return codes.to(torch.float8_e4m3fn), scale
