"""Weight-only 4-bit linear layer: y = x @ ((codes - 8) * scale + zero).T + bias, groups along K.

Owns: PackedW4 (a weight laid out for one kernel), the checks, the choice of the kernel. The packed
bytes themselves are multiplied; `linear` never makes a dequantized copy of the weight. Shapes that
a kernel cannot take are padded when packing. Kernels: "torch-int4pack" (cpu.py) and "triton-w4a16"
(gpu.py). The canonical form, for files and for calibrated methods, is QuantizedW4 (codes.py).
"""

import importlib
from dataclasses import dataclass
from types import ModuleType

import torch
from torch.nn.functional import pad

from kernels import registry
from kernels.calls import count
from kernels.linear_w4.codes import QuantizedW4, quantize

__all__ = ["OP", "PackedW4", "QuantizedW4", "lay_out", "linear", "pack", "quantize"]

OP = "linear_w4"


@dataclass(frozen=True, eq=False)
class PackedW4:
    """A weight [n, k] in the layout of one kernel, and nothing beside it in memory.

    packed: uint8 [N, K / 2] with N and K rounded up as that kernel needs; scale_zero:
    [K / group_size, N, 2] in the dtype of x. What a byte holds is the kernel's business.
    """

    packed: torch.Tensor
    scale_zero: torch.Tensor
    n: int
    k: int
    group_size: int
    kernel: str

    @property
    def nbytes(self) -> int:
        """Resident bytes: codes, scales, zeros and padding."""
        return self.packed.nbytes + self.scale_zero.nbytes

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of x and y."""
        return self.scale_zero.dtype

    def unpack(self) -> QuantizedW4:
        """The canonical codes, scales and zeros, exactly those that were packed."""
        undo = _module(self.kernel).undo
        found: QuantizedW4 = undo(self.packed, self.scale_zero, self.n, self.k, self.group_size)
        return found

    def dequantize(self) -> torch.Tensor:
        """The weight [n, k] that the codes stand for, in fp32."""
        return self.unpack().dequantize()


def pack(
    weight: torch.Tensor,
    group_size: int = 32,
    dtype: torch.dtype | None = None,
    symmetric: bool = False,
    kernel: str | None = None,
) -> PackedW4:
    """Quantize weight [N, K] to 4 bits per group along K (round to nearest) and lay it out.

    See `quantize` for `dtype` and `symmetric`. Raises ValueError for shapes, dtypes and values that
    do not fit, KernelUnavailable when no kernel (or not the named one) runs here.
    """
    registry.select(OP, weight.device, "int4", kernel)
    return lay_out(quantize(weight, group_size, dtype, symmetric), kernel)


def lay_out(quantized: QuantizedW4, kernel: str | None = None) -> PackedW4:
    """Lay canonical codes out for the kernel of their device. Raises KernelUnavailable."""
    chosen = registry.select(OP, quantized.nibbles.device, "int4", kernel).name
    packed, scale_zero = _module(chosen).lay_out(quantized)
    return PackedW4(packed, scale_zero, quantized.n, quantized.k, quantized.group_size, chosen)


def linear(x: torch.Tensor, packed: PackedW4, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [..., K] of packed.dtype -> y [..., N]; no gradients. Raises ValueError with a sentence."""
    if x.dtype is not packed.scale_zero.dtype or x.dim() == 0 or x.shape[-1] != packed.k:
        raise ValueError(
            f"x must be [..., {packed.k}] of {packed.dtype}, not {list(x.shape)} of {x.dtype}."
        )
    if bias is not None and bias.shape != (packed.n,):
        raise ValueError(f"bias must be [{packed.n}], not {list(bias.shape)}.")
    if x.device != packed.packed.device:
        raise ValueError(f"x is on {x.device}, the packed weight on {packed.packed.device}.")
    if x.numel() == 0:
        return x.new_zeros((*x.shape[:-1], packed.n))
    rows = x.detach() if x.requires_grad else x
    rows = rows if rows.dim() == 2 else rows.reshape(-1, packed.k)
    module = _module(packed.kernel)
    if packed.kernel == "torch-int4pack":
        padding = packed.packed.shape[1] * 2 - packed.k
        rows = pad(rows, (0, padding)) if padding else rows.contiguous()
    count(OP, packed.kernel)
    y: torch.Tensor = module.matmul(rows, packed.packed, packed.scale_zero, packed.group_size)
    if y.shape[1] != packed.n:
        y = y[:, : packed.n].contiguous()
    if bias is not None:
        y = y + bias
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], packed.n)


_modules: dict[str, ModuleType] = {}


def _module(kernel: str) -> ModuleType:
    module = _modules.get(kernel)
    if module is None:
        name = next(i.module for i in registry.KERNELS if i.op == OP and i.name == kernel)
        module = _modules[kernel] = importlib.import_module(name)
    return module
