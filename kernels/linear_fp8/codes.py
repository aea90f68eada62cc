"""The canonical form, and the rounding of x that every kernel of linear_fp8 repeats.

Owns Fp8 and quantize_rows: E4M3 on both sides, a scale for each row.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from kernels.linear_lowbit import codes as lowbit
from kernels.linear_lowbit.codes import LowBit

FORMAT = "fp8-fp8"
# The largest finite E4M3 number.
MOST = 448.0
# A row of x below this is zero: 448 / max would be infinite.
TINY = 1e-30
# The first code, without its sign, that is no number.
NAN = 0x7F


@dataclass(frozen=True, eq=False)
class Fp8(LowBit):
    """A matrix [n, k] of finite E4M3 codes with one scale a row, whose inputs are to be rounded to
    E4M3 too. Raises ValueError for other forms.
    """

    op: ClassVar[str] = "linear_fp8"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "e4m3" or self.groups != 1 or self.zero is not None or self.double:
            raise ValueError(
                f"linear_fp8 takes e4m3 codes with one scale a row, not {super().format}."
            )
        if bool(((self.codes & NAN) == NAN).any()):
            raise ValueError("a code is not a number.")

    @property
    def format(self) -> str:
        """Both sides' format."""
        return FORMAT

    @classmethod
    def of(cls, form: LowBit) -> "Fp8":
        """The same codes and scales."""
        kept = form.scale_format
        return cls(form.codes, form.scale, form.zero, form.bits, form.group_size, form.kind, kept)


def quantize(weight: torch.Tensor) -> Fp8:
    """Weight [n, k] to the nearest E4M3 codes, scale = max |row| / 448 rounded to fp16."""
    return Fp8.of(lowbit.quantize(weight, 8, weight.shape[1], "e4m3"))


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
