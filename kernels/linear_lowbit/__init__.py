"""Weight-only linear layer on codes of 1 to 8 bit: y = x @ dequantized(codes).T + bias.

Owns: LowBitWeight (a matrix laid out for one kernel), the checks and the choice of the kernel. The
packed codes themselves are multiplied; no float copy of the whole weight is ever made by a call.
The canonical form, for files and calibrated methods, is LowBit (codes.py). Kernels: "cpp" (on the
CPU), "torch-int4pack" and "torch-int8pack" (torch's own), "triton" (GPU), "torch" (any device,
tile by tile; slow).
"""

from kernels.linear_lowbit.codes import LowBit, quantize
from kernels.packed import PackedWeight

__all__ = ["LowBit", "LowBitWeight", "quantize"]


class LowBitWeight(PackedWeight):
    """A LowBit matrix [n, k] in the layout of one kernel."""

    __slots__ = ()
    op = LowBit.op

    def form(self) -> LowBit:
        """The canonical form, exactly the one that was laid out."""
        form: LowBit = self._product.undo()
        return form
