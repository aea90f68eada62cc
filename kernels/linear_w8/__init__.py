"""Weight-only int8 linear layer: y = x @ (codes * scale).T + bias, one scale per output channel.

Owns: packing (symmetric, absmax / 127), the checks, the choice of the kernel. The packed bytes
themselves are multiplied; no dequantized copy of the weight is ever made by `linear`.
Kernel: "torch-int8pack" (cpu.py).
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from kernels import registry
from kernels.calls import count
from kernels.linear_w8.cpu import K_MULTIPLE, matmul

OP = "linear_w8"
FORMATS = (torch.bfloat16, torch.float32, torch.float16)


@dataclass(frozen=True, eq=False)
class PackedW8:
    """int8 codes [N, K padded], scale [N] in the dtype of x, and the true shape (n, k)."""

    codes: torch.Tensor
    scale: torch.Tensor
    n: int
    k: int
    kernel: str

    @property
    def nbytes(self) -> int:
        """Resident bytes: codes and scales."""
        return self.codes.nbytes + self.scale.nbytes

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of x and y."""
        return self.scale.dtype

    def dequantize(self) -> torch.Tensor:
        """The weight [N, K] that the codes stand for, in fp32."""
        return self.codes[:, : self.k].float() * self.scale.float()[:, None]


def pack(
    weight: torch.Tensor, dtype: torch.dtype | None = None, kernel: str | None = None
) -> PackedW8:
    """Quantize weight [N, K] to int8, symmetric per output channel, round to nearest.

    `dtype` is that of x, y and the scales (default: the weight's). Raises ValueError for shapes,
    dtypes and values that do not fit, KernelUnavailable when no kernel runs here.
    """
    dtype = dtype or weight.dtype
    if weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(f"weight must be [N, K] with N, K >= 1, not {list(weight.shape)}.")
    if not weight.is_floating_point() or dtype not in FORMATS:
        raise ValueError(f"weight is {weight.dtype}, dtype {dtype}; linear_w8 takes floats.")
    chosen = registry.select(OP, weight.device, "int8", kernel).name
    exact = weight.detach().float()
    largest = exact.abs().amax(dim=1)
    if not bool(torch.isfinite(largest).all()):
        raise ValueError("weight has NaN or infinite values; it cannot be quantized.")
    # The scale is rounded to its stored dtype first, so the codes fit the scale that is used.
    scale = (largest / 127).to(dtype)
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale)).float()
    codes = (exact / divisor[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    n, k = codes.shape
    return PackedW8(pad(codes, (0, -k % K_MULTIPLE)).contiguous(), scale, n, k, chosen)


def linear(x: torch.Tensor, packed: PackedW8, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [..., K] of packed.dtype -> y [..., N]; no gradients. Raises ValueError with a sentence."""
    if x.dtype is not packed.scale.dtype or x.dim() == 0 or x.shape[-1] != packed.k:
        raise ValueError(
            f"x must be [..., {packed.k}] of {packed.dtype}, not {list(x.shape)} of {x.dtype}."
        )
    if bias is not None and bias.shape != (packed.n,):
        raise ValueError(f"bias must be [{packed.n}], not {list(bias.shape)}.")
    if x.device != packed.codes.device:
        raise ValueError(f"x is on {x.device}, the packed weight on {packed.codes.device}.")
    if x.numel() == 0:
        return x.new_zeros((*x.shape[:-1], packed.n))
    rows = x.detach() if x.requires_grad else x
    rows = rows if rows.dim() == 2 else rows.reshape(-1, packed.k)
    padding = packed.codes.shape[1] - packed.k
    rows = pad(rows, (0, padding)) if padding else rows.contiguous()
    count(OP, packed.kernel)
    y = matmul(rows, packed.codes, packed.scale)
    if bias is not None:
        y += bias
    return y if x.dim() == 2 else y.view(*x.shape[:-1], packed.n)
