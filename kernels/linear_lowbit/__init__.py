"""Weight-only linear layer on codes of 1 to 8 bit: y = x @ dequantized(codes).T + bias.

Owns: LowBitWeight (a matrix laid out for one kernel), the checks and the choice of the kernel. The
packed codes themselves are multiplied; no float copy of the whole weight is ever made by a call.
The canonical form, for files and calibrated methods, is LowBit (codes.py). Kernels: "cpp" (bf16 on
the CPU), "torch-int4pack" and "torch-int8pack" (torch's own), "triton" (GPU), "torch" (any device,
tile by tile; slow).
"""

import torch

from kernels.linear_lowbit.codes import LowBit, quantize
from kernels.packed import PackedWeight, choose

__all__ = ["OP", "LowBit", "LowBitWeight", "quantize"]

OP = "linear_lowbit"


class LowBitWeight(PackedWeight):
    """A LowBit matrix [n, k] in the layout of one kernel.

    A kernel's module has `refuse(form, dtype)`, a sentence or None, beside its Product. Raises
    KernelUnavailable when no kernel, or not the named one, takes the form here.
    """

    __slots__ = ()
    op = OP

    def __init__(
        self,
        form: LowBit,
        bias: torch.Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        kernel: str | None = None,
    ) -> None:
        codes = form.format.partition("-")[0]
        super().__init__(
            form, bias, dtype, form.format, lambda: choose(OP, form, codes, dtype, kernel)
        )

    def form(self) -> LowBit:
        """The canonical form, exactly the one that was laid out."""
        found: LowBit = self._product.undo()
        return found
