"""The canonical 4-bit form of a weight, which every device layout is made from and goes back to.

Owns: round-to-nearest quantization per group along K, and nibbles in bytes. A calibrated method
(GPTQ, AWQ) makes a QuantizedW4 of its own; device layouts belong to cpu.py and gpu.py.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

GROUP_SIZES = (32, 64, 128, 256)
FORMATS = (torch.bfloat16, torch.float32, torch.float16)


@dataclass(frozen=True, eq=False)
class QuantizedW4:
    """A weight [n, k] as 4-bit codes: weight = (code - 8) * scale + zero.

    nibbles: uint8 [n, K / 2], where K is k rounded up to whole groups; the low nibble holds the
    even column. scale, zero: [n, K / group_size], in the dtype of x. Columns from k on carry no
    meaning. Raises ValueError when the parts do not fit together.
    """

    nibbles: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    n: int
    k: int
    group_size: int

    def __post_init__(self) -> None:
        check_group(self.group_size)
        groups = -(-self.k // self.group_size)
        wanted = (self.n, groups * self.group_size // 2)
        if self.nibbles.dtype is not torch.uint8 or self.nibbles.shape != wanted:
            raise ValueError(
                f"nibbles must be uint8 {list(wanted)}, "
                f"not {self.nibbles.dtype} {list(self.nibbles.shape)}."
            )
        for name, side in (("scale", self.scale), ("zero", self.zero)):
            if side.shape != (self.n, groups) or side.dtype not in FORMATS:
                raise ValueError(
                    f"{name} must be floats [{self.n}, {groups}], "
                    f"not {side.dtype} {list(side.shape)}."
                )
        if self.scale.dtype is not self.zero.dtype:
            raise ValueError(f"scale is {self.scale.dtype} but zero is {self.zero.dtype}.")

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zeros."""
        return self.nibbles.nbytes + self.scale.nbytes + self.zero.nbytes

    def codes(self) -> torch.Tensor:
        """uint8 [n, K] in 0..15, K rounded up to whole groups."""
        return unpack_nibbles(self.nibbles)

    def dequantize(self) -> torch.Tensor:
        """The weight [n, k] that the codes stand for, in fp32."""
        steps = self.codes().float().sub_(8).view(self.n, -1, self.group_size)
        weight = steps * self.scale.float()[..., None] + self.zero.float()[..., None]
        return weight.view(self.n, -1)[:, : self.k].contiguous()


def check_group(group_size: int) -> None:
    """Raise ValueError unless `group_size` is one that all kernels know."""
    if group_size not in GROUP_SIZES:
        known = ", ".join(str(size) for size in GROUP_SIZES)
        raise ValueError(f"group_size must be one of {known}, not {group_size}.")


def quantize(
    weight: torch.Tensor,
    group_size: int = 32,
    dtype: torch.dtype | None = None,
    symmetric: bool = False,
) -> QuantizedW4:
    """Round weight [N, K] to 4 bits per group of `group_size` columns, to nearest.

    Affine (default): 16 steps from the smallest to the largest value of a group. Symmetric: zero
    is a code of its own (pruned weights stay zero) and the value of largest magnitude is exact.
    `dtype` is that of x, scale and zero (default: the weight's).
    """
    dtype = dtype or weight.dtype
    if weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(f"weight must be [N, K] with N, K >= 1, not {list(weight.shape)}.")
    if not weight.is_floating_point() or dtype not in FORMATS:
        raise ValueError(f"weight is {weight.dtype}, dtype {dtype}; linear_w4 takes floats.")
    check_group(group_size)
    n, k = weight.shape
    exact = weight.detach().float()
    if not bool(torch.isfinite(exact).all()):
        raise ValueError("weight has NaN or infinite values; it cannot be quantized.")
    # Padding repeats the last column, so that it does not widen the last group's range.
    exact = pad(exact[None], (0, -k % group_size), mode="replicate")[0]
    groups = exact.view(n, -1, group_size)
    low, high = groups.amin(dim=2), groups.amax(dim=2)
    if symmetric:
        scale = torch.where(high >= -low, high, low) / -8
        zero = torch.zeros_like(scale)
    else:
        scale = (high - low) / 15
        zero = low + 8 * scale
    # Rounded to the stored dtype first, so that the codes fit the scale that is really used.
    scale, zero = scale.to(dtype), zero.to(dtype)
    divisor = torch.where(scale != 0, scale, torch.ones_like(scale)).float()
    steps = (groups - zero.float()[..., None]).div_(divisor[..., None])
    codes = steps.round_().add_(8).clamp_(0, 15).to(torch.uint8).view(n, -1)
    return QuantizedW4(pack_nibbles(codes), scale, zero, n, k, group_size)


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """uint8 codes [N, K], K even -> uint8 [N, K / 2]; the low nibble is the even column."""
    return codes[:, ::2] | (codes[:, 1::2] << 4)


def unpack_nibbles(nibbles: torch.Tensor) -> torch.Tensor:
    """The reverse of pack_nibbles."""
    return torch.stack((nibbles & 15, nibbles >> 4), dim=2).view(nibbles.shape[0], -1)
