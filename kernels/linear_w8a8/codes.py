"""The canonical form of an int8 matrix whose inputs are int8 too, and rounding of both to nearest.

Owns: W8A8 and the arithmetic of scales that every kernel repeats bit for bit. Layouts in memory
belong to the kernels' files; which scale is right is a technique's business.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

# 255 * 127 * k must fit an int32.
MOST_COLUMNS = 1 << 16
# A row of x below this is zero: 127 / max would be infinite.
TINY = 1e-30


@dataclass(frozen=True, eq=False)
class W8A8:
    """A matrix [n, k] = codes * scale[:, None], for x in int8.

    codes: int8 [n, k]. scale: fp32 [n]. x_scale: the one scale of all of x, found by calibration;
    None: each row of x has max |x| / 127. `apart`: int32 [o], ascending columns of x that are left
    out, because another product takes them: fewer than k, and their codes are 0. Raises ValueError
    when the parts do not fit.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    x_scale: float | None = None
    apart: torch.Tensor | None = None

    op: ClassVar[str] = "linear_w8a8"
    codes_format: ClassVar[str] = "int8"

    def __post_init__(self) -> None:
        codes, scale, apart = self.codes, self.scale, self.apart
        if codes.dtype is not torch.int8 or codes.dim() != 2 or 0 in codes.shape:
            raise ValueError(
                f"codes must be int8 [n, k] with n, k >= 1, not {codes.dtype} {list(codes.shape)}."
            )
        if self.k > MOST_COLUMNS:
            raise ValueError(f"linear_w8a8 sums {MOST_COLUMNS} columns at most, not {self.k}.")
        if scale.dtype is not torch.float32 or scale.shape != (self.n,):
            raise ValueError(
                f"scale must be fp32 [{self.n}], not {scale.dtype} {list(scale.shape)}."
            )
        if not bool(scale.isfinite().all()):
            raise ValueError("scale has NaN or infinite values.")
        if self.x_scale is not None and not TINY <= self.x_scale < float("inf"):
            raise ValueError(f"x_scale must be a positive number, not {self.x_scale}.")
        if apart is not None and (
            apart.dtype is not torch.int32
            or apart.dim() != 1
            or not 0 < apart.numel() < self.k
            or bool((apart.diff() <= 0).any())
            or not 0 <= int(apart[0]) <= int(apart[-1]) < self.k
            or bool(codes[:, apart.long()].any())
        ):
            raise ValueError(
                f"apart must be ascending int32 columns of {self.k}, not all, whose codes are 0."
            )

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.codes.shape[0])

    @property
    def k(self) -> int:
        """Columns."""
        return int(self.codes.shape[1])

    @property
    def format(self) -> str:
        """`w8a8`, each row of x with its scale, or `w8a8-static`."""
        return "w8a8" if self.x_scale is None else "w8a8-static"

    def kept_columns(self) -> torch.Tensor:
        """int64 [k - o]: the columns that are not left out."""
        left = torch.ones(self.k, dtype=torch.bool, device=self.codes.device)
        if self.apart is not None:
            left[self.apart.long()] = False
        return left.nonzero().flatten()

    def kept(self) -> torch.Tensor:
        """The codes of those columns, int8 [n, k - o]."""
        return self.codes if self.apart is None else self.codes[:, self.kept_columns()]

    @classmethod
    def of_kept(
        cls,
        kept: torch.Tensor,
        scale: torch.Tensor,
        x_scale: float | None,
        apart: torch.Tensor | None,
        k: int,
    ) -> "W8A8":
        """The reverse of `kept`."""
        if apart is None:
            return cls(kept, scale, x_scale)
        whole = cls(kept.new_zeros(kept.shape[0], k), scale, x_scale, apart)
        whole.codes[:, whole.kept_columns()] = kept
        return whole

    def dequantize(self) -> torch.Tensor:
        """The matrix that the codes stand for, fp32 [n, k]."""
        return self.codes.float() * self.scale[:, None]


def quantize(
    weight: torch.Tensor, x_scale: float | None = None, apart: torch.Tensor | None = None
) -> W8A8:
    """Round weight [n, k] to nearest, symmetric, one scale a row: max |row| / 127.

    The columns of `apart` do not widen a row's range; their codes are 0. Raises ValueError for
    shapes that do not fit and for NaN and infinity.
    """
    if weight.dim() != 2 or 0 in weight.shape or not weight.is_floating_point():
        raise ValueError(
            f"weight must be floats [n, k] with n, k >= 1, not {weight.dtype} {list(weight.shape)}."
        )
    exact = weight.detach().float()
    if not bool(exact.isfinite().all()):
        raise ValueError("weight has NaN or infinite values; it cannot be quantized.")
    if apart is not None:
        exact = exact.index_fill(1, apart.long(), 0)
    scale = exact.abs().amax(dim=1) / 127
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = (exact / divisor[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return W8A8(codes, scale, x_scale, apart)


def quantize_rows(
    x: torch.Tensor, x_scale: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes int8 [M, k] and scales fp32 [M] of x [M, k], as the kernels make them.

    NaN and infinity make the row's scale NaN. A fixed scale saturates at -127 and 127.
    """
    exact = x.float()
    most = exact.abs().amax(dim=1)
    # Tensors on both sides: torch divides a number by a tensor with a rounded reciprocal.
    steps = torch.full_like(most, 127)
    if x_scale is None:
        scale = most / steps
        inverse = torch.where(most >= TINY, steps / most, torch.zeros_like(most))
    else:
        scale = torch.full_like(most, x_scale)
        inverse = torch.ones_like(scale) / scale
    finite = most.isfinite()
    inverse = torch.where(finite, inverse, torch.zeros_like(inverse))
    codes = (exact * inverse[:, None]).clamp_(-127, 127).round_().nan_to_num_(0)
    return codes.to(torch.int8), torch.where(finite, scale, torch.full_like(scale, float("nan")))
