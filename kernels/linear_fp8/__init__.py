"""Linear layer with FP8 weights and FP8 inputs: y = (q . w) * s_x * s_w + bias, both in E4M3.

Owns: Fp8Weight (a matrix laid out for one kernel), the checks and the choice of the kernel. x and
y are floats; x is rounded inside the kernel, each row by its largest value. A row of x with NaN or
infinity gives NaN. Kernels: "cpp" (bf16 x on the CPU), "triton" (GPUs with FP8 units) and "torch"
(any device; the same numbers, slowly). Weight-only FP8 belongs to kernels.linear_lowbit.
"""

from kernels.linear_fp8.codes import Fp8, quantize
from kernels.packed import PackedWeight

__all__ = ["Fp8", "Fp8Weight", "quantize"]


class Fp8Weight(PackedWeight):
    """An Fp8 matrix [n, k] in the layout of one kernel."""

    __slots__ = ()
    op = Fp8.op

    def form(self) -> Fp8:
        """The canonical form, exactly the one that was laid out."""
        return Fp8.of(self._product.undo())
