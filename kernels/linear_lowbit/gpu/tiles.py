"""The kernel "triton-tiles": a tile of codes unpacked to floats by Triton, multiplied by torch.

NOT YET RUN ON A GPU: correct in Triton's interpreter and compiled for compute capability 9.0 only.
For many rows: writing and reading TILE_BYTES of floats once is little beside a product of hundreds
of rows, and torch's product is as fast as it gets. It reads the layout of the kernel "triton" and
shares its tensors.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl

from kernels.cuda import on
from kernels.linear_lowbit import gpu
from kernels.linear_lowbit.codes import LowBit
from kernels.linear_lowbit.gpu.kernels import _scale, _value

# Of floats at a time: enough rows of the weight to fill a GPU with torch's tiles.
TILE_BYTES = 32 << 20
# With fewer rows of x the floats are more traffic than the codes can save.
LEAST_ROWS = 64
BLOCK_N, BLOCKS = 32, 2

available, refuse = gpu.available, gpu.refuse


def over(product: object) -> "Product | None":
    """The same codes in this kernel's hands; see kernels.packed."""
    return Product.of(product) if isinstance(product, gpu.Product) else None


@triton.jit
def unpack_rows(
    y_ptr,  # [end - begin, K]
    words_ptr,  # [B, N, 8] int32
    scale_ptr,  # [G, N]
    zero_ptr,  # [G, N]
    step_ptr,
    low_ptr,
    table_ptr,
    begin,
    end,
    n,
    k,
    blocks,
    WIDTH: tl.constexpr,
    KIND: tl.constexpr,
    CENTRE: tl.constexpr,
    GROUP: tl.constexpr,  # 0: one scale a row
    PARTS: tl.constexpr,  # stretches of a block that have one scale each
    ZERO: tl.constexpr,
    DOUBLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Rows [begin, end) of the weight as floats."""
    EACH: tl.constexpr = 32 // WIDTH
    SPAN: tl.constexpr = EACH // PARTS
    c = (begin + tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N))[:, None]
    j = tl.arange(0, 8 * BLOCKS)
    block = (tl.program_id(1) * BLOCKS + j // 8)[None, :]
    i = (j % 8)[None, :]
    ok = (c < end) & (block < blocks)
    word = tl.load(words_ptr + (block.to(tl.int64) * n + c) * 8 + i, mask=ok, other=0)
    word = word.to(tl.uint32, bitcast=True)
    row = y_ptr + (c - begin).to(tl.int64) * k
    for part in tl.static_range(PARTS):
        group, fits = block * 0, ok
        if GROUP > 0:
            group = (block * (8 * EACH) + part * (8 * SPAN)) // GROUP
            fits = ok & (group * GROUP < k)
        scale = _scale(scale_ptr, step_ptr, low_ptr, group, c, fits, n, DOUBLE)
        if ZERO:
            zero = tl.load(zero_ptr + group * n + c, mask=fits, other=0).to(tl.float32)
        for place in tl.static_range(SPAN):
            column = block * (8 * EACH) + (part * SPAN + place) * 8 + i
            value = _value(word, table_ptr, part * SPAN + place, WIDTH, KIND, CENTRE)
            if ZERO:
                value -= zero
            value = (value * scale).to(y_ptr.dtype.element_ty)
            tl.store(row + column, value, mask=ok & (column < k))


class Product:
    """See LowBitWeight; the layout is that of the kernel "triton"."""

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self._codes = gpu.Product(form, dtype, bias)

    @classmethod
    def of(cls, codes: gpu.Product) -> "Product":
        """On the tensors of the kernel "triton"."""
        product = cls.__new__(cls)
        product._codes = codes
        return product

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        return self.into(x, x.new_empty(len(x), self._codes.layout.n))

    def ways(self, rows: int) -> dict[str, Callable[..., object]]:
        """Itself, from LEAST_ROWS on."""
        return {"": self.into} if rows >= LEAST_ROWS else {}

    def into(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See kernels.choice.ways."""
        n, k, bias = self._codes.layout.n, self._codes.layout.k, self._codes.bias
        each = max(1, min(n, TILE_BYTES // (k * x.element_size())))
        tile = torch.empty(each, k, dtype=x.dtype, device=x.device)
        if residual is not None and residual.data_ptr() != out.data_ptr():
            out.copy_(residual)
        for begin in range(0, n, each):
            end = min(begin + each, n)
            across, y = self._unpacked(tile, begin, end).t(), out[:, begin:end]
            if residual is not None:
                y.addmm_(x, across)
            elif bias is not None:
                torch.addmm(bias[begin:end], x, across, out=y)
            else:
                torch.mm(x, across, out=y)
        if residual is not None and bias is not None:
            out += bias
        return out

    def _unpacked(self, tile: torch.Tensor, begin: int, end: int) -> torch.Tensor:
        layout, table = self._codes.layout, self._codes.table
        grid = (triton.cdiv(end - begin, BLOCK_N), triton.cdiv(layout.blocks, BLOCKS))
        words = layout.words
        sides = (layout.zero, layout.double_step, layout.double_low, table)
        with on(tile.device):
            unpack_rows[grid](
                tile, words, layout.scale, *(words if side is None else side for side in sides),
                begin, end, layout.n, layout.k, layout.blocks, **self._codes.meta,
                BLOCK_N=BLOCK_N, BLOCKS=BLOCKS,
            )  # fmt: skip
        return tile[: end - begin]

    def undo(self) -> LowBit:
        """The canonical form."""
        return self._codes.undo()

    def tensors(self) -> list[torch.Tensor]:
        """Those of the kernel "triton"."""
        return self._codes.tensors()
