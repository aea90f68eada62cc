"""The layout of low-bit codes for vector registers: 16 rows by 32 columns, read by cpu.cpp.

Owns Packed and the way there and back. Multiplies nothing.

A block of 16 rows and 32 columns keeps its b-bit codes as planes of 4, 2 and 1 bits (8 bits as they
are), one after the other: 64 * b bytes. A plane of `w` bits is w chunks of 64 bytes. A chunk holds
32 / w columns as 16-bit words: word 2r + p belongs to row r and columns of parity p, and its bits
w * j and up are the code of column 2j + p of the chunk. So one register shifted by w * j holds, as
16-bit words, a pair of codes of each row: an index into a table of bf16 values (vpermw), of which
no bit need be masked, and then an operand of vdpbf16ps.

Codes of 7 and 8 bits take a byte: a sign and 7 bits that look up a magnitude. An 8-bit integer is
kept as the sign and magnitude of code - 128 + 0.5, which bf16 holds exactly.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from kernels.dtypes import as_torch
from kernels.linear_lowbit.codes import DOUBLE_ROWS, DoubleScale, LowBit, levels

ROWS, COLUMNS = 16, 32
# Rows packed at a time, so that the wide numbers in between stay small.
CHUNK_ROWS = 1024
_PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}

assert DOUBLE_ROWS == ROWS


@dataclass(frozen=True, eq=False)
class Packed:
    """A LowBit in the layout above.

    codes: uint8 [row blocks, column blocks, 64 * width]. scale: fp16, fp32 or uint8 [row blocks,
    kept groups, 16]. zero: int8 (then counted from the middle code), fp16 or fp32 of that shape, or
    None. step, low: fp32 [row blocks] or None (doubly quantized scales). table: bf16 [128], the
    value of each code or, of 8-bit codes, its magnitude.
    """

    n: int
    k: int
    bits: int
    group_size: int
    kind: str
    scale_format: str
    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    step: torch.Tensor | None
    low: torch.Tensor | None
    table: torch.Tensor

    def tensors(self) -> list[torch.Tensor]:
        """Everything kept in memory, the codes first."""
        sides = (self.codes, self.scale, self.zero, self.step, self.low, self.table)
        return [side for side in sides if side is not None]

    @property
    def nbytes(self) -> int:
        """Bytes of `tensors()`."""
        return sum(tensor.nbytes for tensor in self.tensors())

    @property
    def width(self) -> int:
        """Bits that a code takes."""
        return 8 if self.bits == 7 else self.bits

    @property
    def group_columns(self) -> int:
        """Columns of a group as the kernel counts them: a whole row ends with a block."""
        if self.group_size >= self.k:
            return -(-self.k // COLUMNS) * COLUMNS
        return self.group_size

    @property
    def groups(self) -> int:
        """Groups of a row of the form, without those kept for padding."""
        return -(-self.k // self.group_size)

    @property
    def middle(self) -> int:
        """What is taken from a code to give its value: that of symmetric integers."""
        return 2 ** (self.bits - 1) if self.kind == "int" else 0

    @property
    def shift(self) -> float:
        """weight = scale * (value - zero - shift) with the values of `table`."""
        half = 0.5 if self.kind == "int" and self.width == 8 else 0.0
        in_codes = self.zero is not None and self.zero.dtype is not torch.int8
        return half - self.middle if in_codes else half


def lay_out(form: LowBit) -> Packed:
    """The layout of a form on the CPU. Raises ValueError for a group size it cannot hold."""
    size, k = form.group_size, form.k
    if size < k and size != 16 and size % COLUMNS:
        raise ValueError(
            f"group_size {size} does not fit the CPU layout, which takes 16, "
            f"multiples of {COLUMNS} and whole rows; use the kernel torch."
        )
    kept = 1 if size >= k else -(-k // COLUMNS) * 2 if size == 16 else form.groups
    step = low = None
    if form.double is not None:
        scale = form.double.codes
        step, low = form.double.step.contiguous(), form.double.low.contiguous()
    else:
        scale = form.scale.to(as_torch(form.scale_format))
        if not torch.equal(scale.float(), form.scale):
            raise ValueError(f"scale holds numbers that {form.scale_format} cannot.")
    zero = None if form.zero is None else _small(form.zero, form)
    chunks = [
        _pack(form.codes[begin : begin + CHUNK_ROWS], form)
        for begin in range(0, form.n, CHUNK_ROWS)
    ]
    return Packed(
        form.n,
        k,
        form.bits,
        size,
        form.kind,
        form.scale_format,
        chunks[0] if len(chunks) == 1 else torch.cat(chunks),
        _sides(scale, kept),
        None if zero is None else _sides(zero, kept),
        step,
        low,
        _table(form),
    )


def undo(packed: Packed) -> LowBit:
    """The form that was laid out: codes, scales and zeros bit for bit."""
    codes = torch.cat(
        [
            _unpack(packed.codes[block : block + CHUNK_ROWS // ROWS], packed)
            for block in range(0, packed.codes.shape[0], CHUNK_ROWS // ROWS)
        ]
    )[: packed.n, : packed.k].contiguous()
    scale = _rows(packed.scale, packed)
    double = None
    if packed.step is not None and packed.low is not None:
        double = DoubleScale(scale, packed.step, packed.low)
        scale = double.values()
    zero = None
    if packed.zero is not None:
        zero = _rows(packed.zero, packed).float()
        if packed.zero.dtype is torch.int8:
            zero += packed.middle
    return LowBit(
        codes,
        scale.float(),
        zero,
        packed.bits,
        packed.group_size,
        packed.kind,
        packed.scale_format,
        double,
    )


def _pack(codes: torch.Tensor, form: LowBit) -> torch.Tensor:
    """uint8 codes [n, k] -> [row blocks, column blocks, 64 * width]."""
    if form.bits >= 7 and form.kind == "int":
        codes = _sign_size(codes + (128 - 2 ** (form.bits - 1)) ^ 128)
    codes = pad(codes, (0, -codes.shape[1] % COLUMNS, 0, -codes.shape[0] % ROWS))
    blocks = (codes.shape[0] // ROWS, codes.shape[1] // COLUMNS)
    planes, below = [], 0
    for width in _PLANES[8 if form.bits == 7 else form.bits]:
        part = (codes >> below) & (2**width - 1)
        # row block, row, column block, chunk, byte, place in the byte, parity
        part = part.view(blocks[0], ROWS, blocks[1], width, 2, 8 // width, 2)
        part = part.permute(0, 2, 3, 1, 6, 4, 5)
        packed = part[..., 0].clone(memory_format=torch.contiguous_format)
        for place in range(1, 8 // width):
            packed |= part[..., place] << (place * width)
        planes.append(packed.view(*blocks, 64 * width))
        below += width
    return planes[0] if len(planes) == 1 else torch.cat(planes, dim=2)


def _unpack(blocks: torch.Tensor, packed: Packed) -> torch.Tensor:
    """The reverse of _pack, with the padding: uint8 [16 * row blocks, 32 * column blocks]."""
    rows, columns = blocks.shape[:2]
    codes = torch.zeros(rows * ROWS, columns * COLUMNS, dtype=torch.uint8)
    start = below = 0
    for width in _PLANES[packed.width]:
        plane = blocks[..., start : start + 64 * width]
        plane = plane.reshape(rows, columns, width, ROWS, 2, 2, 1)
        part = (plane >> torch.arange(0, 8, width, dtype=torch.uint8)) & (2**width - 1)
        part = part.permute(0, 3, 1, 2, 5, 6, 4).reshape(codes.shape)
        codes |= part << below
        start, below = start + 64 * width, below + width
    if packed.bits >= 7 and packed.kind == "int":
        codes = (_sign_size(codes) ^ 128) - (128 - packed.middle)
    return codes


def _sign_size(byte: torch.Tensor) -> torch.Tensor:
    """A signed byte as the sign and size of byte + 0.5, and back."""
    return torch.where(byte >= 128, byte ^ 127, byte)


def _small(zero: torch.Tensor, form: LowBit) -> torch.Tensor:
    """The zeros in the smallest format that holds each exactly."""
    middle = 2 ** (form.bits - 1) if form.kind == "int" else 0
    counted = zero - middle
    whole = counted.to(torch.int8)
    if torch.equal(whole.float() + middle, zero):
        return whole
    half = zero.half()
    return half if torch.equal(half.float(), zero) else zero


def _sides(side: torch.Tensor, kept: int) -> torch.Tensor:
    """[n, groups] -> [row blocks, kept groups, 16], filled with zeros."""
    side = pad(side, (0, kept - side.shape[1], 0, -side.shape[0] % ROWS))
    return side.view(-1, ROWS, kept).transpose(1, 2).contiguous()


def _rows(side: torch.Tensor, packed: Packed) -> torch.Tensor:
    """The reverse of _sides: [n, groups]."""
    rows = side.transpose(1, 2).reshape(-1, side.shape[1])
    return rows[: packed.n, : packed.groups].contiguous()


def _table(form: LowBit) -> torch.Tensor:
    """bf16 [128]; a table of fewer values repeats."""
    values = levels(form.kind)
    if values is None:
        if form.bits >= 7:
            values = torch.arange(128) + 0.5
        else:
            values = torch.arange(2.0**form.bits) - 2 ** (form.bits - 1)
    values = values[:128].bfloat16()
    return values.repeat(128 // len(values)).contiguous()
