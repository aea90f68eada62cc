"""Linear layer with FP8 weights and FP8 inputs: y = (q . w) * s_x * s_w + bias, both in E4M3.

Owns: Fp8Weight (a matrix laid out for one kernel), the checks and the choice of the kernel. x and
y are floats; x is rounded inside the kernel, each row by its largest value. A row of x with NaN or
infinity gives NaN. Kernels: "triton" (GPUs with FP8 units) and "torch" (any device; the same
numbers, slowly). Weight-only FP8 belongs to kernels.linear_lowbit.
"""

import torch

from kernels import registry
from kernels.linear_lowbit.codes import LowBit, quantize
from kernels.packed import PackedWeight

__all__ = ["OP", "Fp8Weight", "LowBit", "quantize"]

OP = "linear_fp8"
FORMAT = "fp8-fp8"
# The first code, without its sign, that is no number.
NAN = 0x7F


class Fp8Weight(PackedWeight):
    """A matrix [n, k] of E4M3 codes with a scale a row in the layout of one kernel.

    The form is LowBit of kind "e4m3" over whole rows. Raises ValueError for any other form,
    KernelUnavailable when no kernel, or not the named one, runs here.
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
        if form.kind != "e4m3" or form.groups != 1 or form.zero is not None or form.double:
            raise ValueError(
                f"linear_fp8 takes e4m3 codes with one scale a row, not {form.format}."
            )
        if bool(((form.codes & NAN) == NAN).any()):
            raise ValueError("a code is not a number.")
        wanted = registry.named(OP, kernel)
        super().__init__(
            form,
            bias,
            dtype,
            FORMAT,
            lambda: registry.select(OP, form.codes.device, "e4m3", wanted).name,
        )

    def form(self) -> LowBit:
        """The canonical form, exactly the one that was laid out."""
        found: LowBit = self._product.undo()
        return found
