"""The layout of low-bit codes that the Triton kernels read, and the way back.

Owns Layout, `lay_out` and `undo`; plain torch, no Triton. Codes lie in 32-bit words, blocks of 32
bytes a row: `words` int32 [B, n, 8] with B = ceil(k / (8 E)) and E = 32 / width codes a word, width
2, 4 or 8 bits (codes of 3 bits take 4, of 5 to 7 take 8). Position p of word i of block b is column
8 E b + 8 p + i. So 32 neighbouring rows of a block are 1 KiB in a line, a thread loads 16 bytes at
once, and position p of a block's eight words is eight neighbouring columns, which x holds in 16
bytes and which share a scale when the group is a multiple of 8. Scales and zeros are [groups, n],
neighbouring rows in a line.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from kernels.linear_lowbit.codes import DoubleScale, LowBit

WORDS = 8


@dataclass(frozen=True, eq=False)
class Layout:
    """A LowBit form [n, k] in words; see the module's text.

    scale: fp16 or fp32 [groups, n], or uint8 codes with `double_step` and `double_low` fp32
    [ceil(n / 16)]. zero: uint8 or fp32 [groups, n], or None.
    """

    words: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    double_step: torch.Tensor | None
    double_low: torch.Tensor | None
    n: int
    k: int
    bits: int
    group_size: int
    kind: str
    scale_format: str

    @property
    def width(self) -> int:
        """Bits that a code takes in a word."""
        return width_of(self.bits)

    @property
    def blocks(self) -> int:
        """Blocks of eight words a row."""
        return int(self.words.shape[0])

    def tensors(self) -> list[torch.Tensor]:
        """Everything that is kept, the words first."""
        all_ = (self.words, self.scale, self.zero, self.double_step, self.double_low)
        return [tensor for tensor in all_ if tensor is not None]


def width_of(bits: int) -> int:
    """Bits that a code of `bits` takes in a word."""
    return 2 if bits <= 2 else 4 if bits <= 4 else 8


def lay_out(form: LowBit) -> Layout:
    """Put the codes into words; scales keep their own format, whole zeros take a byte."""
    width = width_of(form.bits)
    each = 32 // width
    codes = pad(form.codes, (0, -form.k % (WORDS * each)))
    codes = codes.view(form.n, -1, each, WORDS).transpose(0, 1)
    words = codes[:, :, 0].to(torch.int32)
    for place in range(1, each):
        words |= codes[:, :, place].to(torch.int32) << (width * place)
    scale = form.scale if form.scale_format == "fp32" else form.scale.half()
    step = low = None
    if form.double is not None:
        scale, step, low = form.double.codes, form.double.step, form.double.low
    zero = form.zero
    if zero is not None and bool((zero == zero.to(torch.uint8)).all()):
        zero = zero.to(torch.uint8)
    return Layout(
        words.contiguous(),
        scale.t().contiguous(),
        None if zero is None else zero.t().contiguous(),
        step,
        low,
        form.n,
        form.k,
        form.bits,
        form.group_size,
        form.kind,
        form.scale_format,
    )


def undo(layout: Layout) -> LowBit:
    """The canonical form, exactly the one that was laid out."""
    width = layout.width
    places = torch.arange(0, 32, width, dtype=torch.int32, device=layout.words.device)
    codes = (layout.words[:, :, None] >> places[:, None]) & (2**width - 1)
    codes = codes.to(torch.uint8).transpose(0, 1).reshape(layout.n, -1)[:, : layout.k].contiguous()
    scale, double = layout.scale.t().float().contiguous(), None
    if layout.double_step is not None:
        assert layout.double_low is not None
        double = DoubleScale(layout.scale.t().contiguous(), layout.double_step, layout.double_low)
        scale = double.values()
    zero = None if layout.zero is None else layout.zero.t().float().contiguous()
    return LowBit(
        codes,
        scale,
        zero,
        layout.bits,
        layout.group_size,
        layout.kind,
        layout.scale_format,
        double,
    )
