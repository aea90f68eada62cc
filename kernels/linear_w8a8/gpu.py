"""Triton W8A8: rows of x rounded to int8 (gpu_rows.py), an int8 product, the scales at the end.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 and compiled for compute capability 9.0 only;
block sizes are guesses that autotuning chooses from. Owns the product's kernel and its launcher;
the form is codes.py's, checks are the operation's face's.

Codes lie as int8 [n, k] with k rounded up to 16, a thread's load. Sums are int32 and exact. Where
the tiles alone do not fill the device the sum over k is split: partial sums are int32 too, so their
order does not matter. Else the product writes y itself. The weight is the left operand, so that a
few rows of x fill a narrow tile.
"""

import torch
import triton
import triton.language as tl
from torch.nn.functional import pad

from kernels import tuning
from kernels.cuda import on, processors
from kernels.linear_w8a8.codes import W8A8
from kernels.linear_w8a8.gpu_rows import finish, round_rows
from kernels.tuning import rows_bucket

OP = "linear_w8a8"
K_MULTIPLE = 16


def available() -> str | None:
    """None: importing this module already proved that triton is there."""
    return None


def refuse(form: W8A8, dtype: torch.dtype) -> str | None:
    """None: it takes every form."""
    return None


CONFIGS = tuning.configurations(
    (
        (64, 16, 128, 4, 4, 4), (64, 16, 256, 4, 4, 3), (128, 16, 128, 2, 4, 4),
        (64, 32, 128, 2, 4, 4), (128, 64, 128, 2, 4, 4), (128, 128, 128, 1, 8, 3),
        (128, 256, 128, 1, 8, 3), (256, 128, 128, 1, 8, 3),
    )
)  # fmt: skip


@triton.autotune(
    CONFIGS,
    key=["n", "padded", "rows_bucket"],
    prune_configs_by={"early_config_prune": tuning.early},
    do_bench=tuning.bench,
    cache_results=True,
)
@triton.jit(do_not_specialize=["rows_bucket"])
def product_kernel(
    y_ptr,  # [M, N], written where the sum is not split
    sums_ptr,  # [splits, M, N] int32, written where it is
    x_ptr,  # [M, K padded] int8
    w_ptr,  # [N, K padded] int8
    scale_ptr,  # [N] fp32
    x_scale_ptr,  # [M] fp32
    bias_ptr,
    residual_ptr,  # [M, N], may be y
    rows,
    n,
    padded,
    rows_bucket,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WAVES: tl.constexpr,
):
    steps = tl.cdiv(tl.cdiv(padded, BLOCK_K), tl.num_programs(1))
    first = tl.program_id(1) * steps * BLOCK_K
    last = tl.minimum(first + steps * BLOCK_K, padded)
    # Programs that share rows of the weight run beside each other.
    tiles_m = tl.cdiv(rows, BLOCK_M)
    m = (tl.program_id(0) % tiles_m) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = (tl.program_id(0) // tiles_m) * BLOCK_N + tl.arange(0, BLOCK_N)
    x_row = x_ptr + m.to(tl.int64)[:, None] * padded
    w_row = w_ptr + cols.to(tl.int64)[:, None] * padded
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.int32)
    for start in range(first, last, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        there = (j < last)[None, :]
        x = tl.load(x_row + j[None, :], mask=(m < rows)[:, None] & there, other=0)
        w = tl.load(w_row + j[None, :], mask=(cols < n)[:, None] & there, other=0)
        total = tl.dot(w, tl.trans(x), total, out_dtype=tl.int32)
    ok = (m < rows)[None, :] & (cols < n)[:, None]
    at = m.to(tl.int64)[None, :] * n + cols[:, None]
    if tl.num_programs(1) > 1:
        split = tl.program_id(1).to(tl.int64)
        tl.store(sums_ptr + split * rows * n + at, total, mask=ok)
    else:
        x_scale = tl.load(x_scale_ptr + m, mask=m < rows, other=0.0)
        scale = tl.load(scale_ptr + cols, mask=cols < n, other=0.0)
        y = total.to(tl.float32) * (x_scale[None, :] * scale[:, None])
        if BIAS:
            y += tl.load(bias_ptr + cols, mask=cols < n, other=0.0).to(tl.float32)[:, None]
        if RESIDUAL:
            y += tl.load(residual_ptr + at, mask=ok, other=0.0).to(tl.float32)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=ok)


class Product:
    """See W8A8Weight: int8 codes of the columns that are not left out, their number rounded up."""

    def __init__(self, form: W8A8, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.n, self.k, self.bias = form.n, form.k, bias
        self.scale, self.x_scale, self.apart = form.scale.contiguous(), form.x_scale, form.apart
        self.columns = None if form.apart is None else form.kept_columns()
        codes = form.kept()
        self.width = codes.shape[1]
        self.codes = pad(codes, (0, -self.width % K_MULTIPLE)).contiguous()

    def quantized(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes int8 [M, k rounded up] and scales fp32 [M] of x [M, width]."""
        return round_rows(x, self.codes.shape[1], self.x_scale)

    def __call__(self, x: torch.Tensor, split: int | None = None) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        return self.into(x, x.new_empty(len(x), self.n), split=split)

    def into(
        self,
        x: torch.Tensor,
        out: torch.Tensor,
        residual: torch.Tensor | None = None,
        split: int | None = None,
    ) -> torch.Tensor:
        """See kernels.choice.ways. `split` programs share a sum over k, by default enough. The
        first call of a shape chooses blocks on an output of its own.
        """
        rows, padded = len(x), self.codes.shape[1]
        if self.columns is not None:
            x = x.index_select(1, self.columns)
        codes, x_scale = self.quantized(x)

        tiles = tuning.TileGrid(rows, self.n, padded, processors(x.device), split)
        most = tiles.most_splits(product_kernel.configs)
        shape = (most, rows, self.n) if most > 1 else (1, 1, 1)
        sums = torch.empty(shape, dtype=torch.int32, device=x.device)
        others = (
            sums, codes, self.codes, self.scale, x_scale, x if self.bias is None else self.bias,
            x if residual is None else residual, rows, self.n, padded, rows_bucket(rows),
        )  # fmt: skip
        meta = {"BIAS": self.bias is not None, "RESIDUAL": residual is not None}

        def launch(y: torch.Tensor) -> None:
            product_kernel[tiles.grid](y, *others, **meta)

        key = (OP, rows_bucket(rows), self.n, padded, x.device, x.dtype, *meta.values())
        with on(x.device):
            tuning.launch_tuned(key, launch, out)
        # That of the launch just before: its own key's.
        _, used = tiles.grid(product_kernel.best_config.kwargs)
        if used > 1:
            finish(out, sums, used, self.scale, x_scale, self.bias, residual)
        return out

    def undo(self) -> W8A8:
        """The canonical form."""
        codes = self.codes[:, : self.width].contiguous()
        return W8A8.of_kept(codes, self.scale, self.x_scale, self.apart, self.k)

    def tensors(self) -> list[torch.Tensor]:
        """Codes, scales, the columns left out and the others."""
        tensors = [self.codes, self.scale]
        if self.apart is not None and self.columns is not None:
            tensors += [self.apart, self.columns]
        return tensors
