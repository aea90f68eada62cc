"""Linear layer with FP8 weights and FP8 inputs: y = (q . w) * s_x * s_w + bias, both in E4M3.

Owns: Fp8Weight (a matrix laid out for one kernel), the checks and the choice of the kernel. x and
y are floats; x is rounded inside the kernel, each row by its largest value. A row of x with NaN or
infinity gives NaN. Kernels: "cpp" (bf16 x on the CPU), "triton" (GPUs with FP8 units) and "torch"
(any device; the same numbers, slowly). Weight-only FP8 belongs to kernels.linear_lowbit.
"""

import torch

from kernels.linear_fp8.codes import Fp8, quantize
from kernels.packed import PackedWeight, choose

__all__ = ["OP", "Fp8", "Fp8Weight", "quantize"]

OP = "linear_fp8"


class Fp8Weight(PackedWeight):
    """An Fp8 matrix [n, k] in the layout of one kernel.

    A kernel's module has `refuse(form, dtype)`, a sentence or None, beside its Product. Raises
    KernelUnavailable when no kernel, or not the named one, takes the form here.
    """

    __slots__ = ()
    op = OP

    def __init__(
        self,
        form: Fp8,
        bias: torch.Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        kernel: str | None = None,
    ) -> None:
        super().__init__(
            form, bias, dtype, form.format, lambda: choose(OP, form, "e4m3", dtype, kernel)
        )

    def form(self) -> Fp8:
        """The canonical form, exactly the one that was laid out."""
        return Fp8.of(self._product.undo())
