"""Bindings of torch's own packed products for the CPU: int4 in groups, int8 per row.

Found by trying, torch 2.13. `_weight_int4pack_mm_for_cpu`: N a multiple of 16, K of the group;
groups of 32, 64, 128, 256; x, scale and zero share one dtype; value = (code - 8) * scale + zero;
the packed bytes depend on the processor. `_weight_int8pack_mm`: K that is not a multiple of 16 ends
the process with a segmentation fault. Both are padded here.
"""

import torch
from torch.nn.functional import pad

from kernels.linear_lowbit.codes import LowBit

INT4_GROUPS = (32, 64, 128, 256)
N_MULTIPLE, K_MULTIPLE = 16, 32
# Rows converted at a time: torch wants 32-bit codes, eight times the packed size.
CHUNK_ROWS = 2048


def lacks(*names: str) -> str | None:
    """None, or the sentence why this torch cannot do it."""
    missing = [name for name in names if not hasattr(torch.ops.aten, name)]
    if missing:
        return f"needs torch's {' and '.join(missing)}, which torch {torch.__version__} lacks"
    return None


class Int4Product:
    """See LowBitWeight: 4-bit integers. Scale and zero are rounded to x's dtype, so the result may
    differ from the form by that much; `undo` gives the form as it was.
    """

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.n, self.k, self.bias, self._group = form.n, form.k, bias, form.group_size
        extra = -form.n % N_MULTIPLE
        columns = form.groups * form.group_size
        chunks = []
        for start in range(0, form.n, CHUNK_ROWS):
            codes = pad(form.codes[start : start + CHUNK_ROWS], (0, columns - form.k)).int()
            if start + CHUNK_ROWS >= form.n:
                codes = pad(codes, (0, 0, 0, extra), value=8)
            chunks.append(torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1))
        self._packed = torch.cat(chunks)
        self._scale = form.scale.half() if form.scale_format == "fp16" else form.scale
        self._zero = form.zero
        offset = (8 - form.zeros()) * form.scale
        pair = torch.stack((form.scale.t(), offset.t()), dim=2).to(dtype)
        self._scale_zero = pad(pair, (0, 0, 0, extra)).contiguous()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        y = self._product(x, self._scale_zero)
        return y if self.bias is None else y + self.bias

    def _product(self, x: torch.Tensor, scale_zero: torch.Tensor) -> torch.Tensor:
        missing = self._packed.shape[1] * 2 - x.shape[1]
        x = pad(x, (0, missing)) if missing else x
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self._packed, self._group, scale_zero)
        return y if y.shape[1] == self.n else y[:, : self.n].contiguous()

    def undo(self) -> LowBit:
        """The canonical form. The order of bytes differs between processors, so the codes are read
        with the product itself, by rows of the identity.
        """
        columns = self._packed.shape[1] * 2
        units = torch.ones(self._scale_zero.shape)
        units[..., 1] = 8
        codes = torch.empty(self.n, columns, dtype=torch.uint8)
        for start in range(0, columns, self._group):
            rows = torch.zeros(self._group, columns)
            rows[:, start : start + self._group] = torch.eye(self._group)
            read = self._product(rows, units).t().round()
            codes[:, start : start + self._group] = read.to(torch.uint8)
        kept = "fp16" if self._scale.dtype is torch.float16 else "fp32"
        codes = codes[:, : self.k].contiguous()
        return LowBit(codes, self._scale.float(), self._zero, 4, self._group, scale_format=kept)

    def tensors(self) -> list[torch.Tensor]:
        """Packed codes, scales and zeros in x's dtype, and those of the form."""
        tensors = [self._packed, self._scale_zero, self._scale]
        return tensors if self._zero is None else [*tensors, self._zero]


class Int8Product:
    """See LowBitWeight: 8-bit integers with the zero at 128 and one scale a row."""

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.n, self.k, self.bias, self._group = form.n, form.k, bias, form.group_size
        codes = (form.codes.to(torch.int16) - 128).to(torch.int8)
        self._codes = pad(codes, (0, -form.k % K_MULTIPLE)).contiguous()
        self._scale = form.scale.half() if form.scale_format == "fp16" else form.scale
        self._rounded = form.scale[:, 0].to(dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        missing = self._codes.shape[1] - self.k
        x = pad(x, (0, missing)) if missing else x
        y: torch.Tensor = torch._weight_int8pack_mm(x, self._codes, self._rounded)
        return y if self.bias is None else y.add_(self.bias)

    def undo(self) -> LowBit:
        """The canonical form."""
        codes = (self._codes[:, : self.k].to(torch.int16) + 128).to(torch.uint8)
        kept = "fp16" if self._scale.dtype is torch.float16 else "fp32"
        return LowBit(codes, self._scale.float(), None, 8, self._group, scale_format=kept)

    def tensors(self) -> list[torch.Tensor]:
        """Codes, and scales in x's dtype and in the form's."""
        return [self._codes, self._rounded, self._scale]
