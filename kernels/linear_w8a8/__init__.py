"""Linear layer with int8 weights and int8 inputs: y = (q . w) * s_x * s_w + bias, the sum exact.

Owns: W8A8Weight (a matrix laid out for one kernel), the checks and the choice of the kernel. x and
y are floats; x is rounded to int8 inside the kernel, each row by its largest value ("w8a8") or all
by one scale from calibration ("w8a8-static"). Kernels: "cpp" (CPU, bf16 and fp32), "triton" (GPU)
and "torch-int-mm" (`torch._int_mm`, any device). A row of x with NaN or infinity gives NaN.
"""

from collections.abc import Callable

import torch

from kernels.linear_w8a8.codes import W8A8, quantize
from kernels.packed import PackedWeight

__all__ = ["W8A8", "W8A8Weight", "quantize"]


class W8A8Weight(PackedWeight):
    """A W8A8 matrix [n, k] in the layout of one kernel."""

    __slots__ = ()
    op = W8A8.op

    def bind(
        self,
        x: torch.Tensor,
        out: torch.Tensor,
        residual: torch.Tensor | None = None,
        apart: torch.Tensor | None = None,
    ) -> Callable[[], object]:
        """See KernelWeight.bind; a kernels.program.BoundCall where the kernel has one.

        `apart` [M, o], where given, is filled with the columns of x that the form leaves out.
        """
        sides = {"x": (x, self.k), "out": (out, self.n), "residual": (residual, self.n)}
        rows = x.numel() // self.k
        for name, (side, width) in sides.items():
            if side is not None and (
                side.dtype is not self.dtype
                or side.shape != (rows, width)
                or side.device != self._device
                or not side.is_contiguous()
            ):
                raise ValueError(
                    f"{name} must be contiguous [{rows}, {width}] of {self.dtype} on "
                    f"{self._device}, not {list(side.shape)} of {side.dtype} on {side.device}."
                )
        bind = getattr(self._product, "bind", None)
        if bind is not None:
            bound: Callable[[], object] = bind(x, out, residual, apart)
            return bound
        multiply = super().bind(x, out, residual)
        columns = None if apart is None else self.form().apart
        if apart is None or columns is None:
            return multiply

        def step() -> None:
            torch.index_select(x, 1, columns, out=apart)
            multiply()

        return step

    def form(self) -> W8A8:
        """The canonical form, exactly the one that was laid out."""
        form: W8A8 = self._product.undo()
        return form
