"""Triton FP8 x FP8: rows of x rounded to E4M3 (gpu_rows.py), an FP8 product, the scales at the end.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 and compiled for compute capability 9.0 only;
block sizes are guesses that autotuning chooses from. Owns the kernels and their launcher.

Codes lie as E4M3 [n, k] with k rounded up to 16, a thread's load. Hopper's units add FP8 products
with 14 bits; every BLOCK_K columns the sum moves on to fp32 (max_num_imprecise_acc), as DeepSeek-V3
does (2024, section 3.3.2).
"""

import torch
import triton
import triton.language as tl
from torch.nn.functional import pad

from kernels import tuning
from kernels.cuda import on, processors
from kernels.linear_fp8.gpu_rows import round_rows
from kernels.linear_lowbit.codes import LowBit
from kernels.linear_w8a8.gpu_rows import finish
from kernels.tuning import rows_bucket

OP = "linear_fp8"
K_MULTIPLE = 16
NEEDED = (8, 9)


def available() -> str | None:
    """None, or the sentence why this GPU cannot do it."""
    if not torch.cuda.is_available():
        return None
    capability = torch.cuda.get_device_capability()
    if capability < NEEDED:
        here = f"{capability[0]}.{capability[1]}"
        return f"needs FP8 units (compute capability 8.9 or later); this GPU has {here}"
    return None


def refuse(form: LowBit, dtype: torch.dtype) -> str | None:
    """None: it takes every form that Fp8Weight does."""
    return None


CONFIGS = tuning.configurations(
    (
        (64, 16, 128, 4, 4, 4), (128, 16, 128, 2, 4, 4), (64, 32, 128, 2, 4, 4),
        (128, 64, 128, 2, 4, 4), (128, 128, 128, 1, 8, 3), (128, 256, 128, 1, 8, 3),
        (256, 128, 128, 1, 8, 3),
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
    sums_ptr,  # [splits, M, N] fp32, written where it is
    x_ptr,  # [M, K padded] E4M3
    w_ptr,  # [N, K padded] E4M3
    scale_ptr,  # [N]
    x_scale_ptr,  # [M] fp32
    bias_ptr,
    residual_ptr,  # [M, N], may be y
    rows,
    n,
    padded,
    rows_bucket,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    FP32_DOT: tl.constexpr,
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
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for start in range(first, last, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        there = (j < last)[None, :]
        x = tl.load(x_row + j[None, :], mask=(m < rows)[:, None] & there, other=0.0)
        w = tl.load(w_row + j[None, :], mask=(cols < n)[:, None] & there, other=0.0)
        if FP32_DOT:
            x, w = x.to(tl.float32), w.to(tl.float32)
        total = tl.dot(w, tl.trans(x), total, max_num_imprecise_acc=BLOCK_K)
    ok = (m < rows)[None, :] & (cols < n)[:, None]
    at = m.to(tl.int64)[None, :] * n + cols[:, None]
    if tl.num_programs(1) > 1:
        split = tl.program_id(1).to(tl.int64)
        tl.store(sums_ptr + split * rows * n + at, total, mask=ok)
    else:
        x_scale = tl.load(x_scale_ptr + m, mask=m < rows, other=0.0)
        scale = tl.load(scale_ptr + cols, mask=cols < n, other=0.0).to(tl.float32)
        y = total * (x_scale[None, :] * scale[:, None])
        if BIAS:
            y += tl.load(bias_ptr + cols, mask=cols < n, other=0.0).to(tl.float32)[:, None]
        if RESIDUAL:
            y += tl.load(residual_ptr + at, mask=ok, other=0.0).to(tl.float32)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=ok)


class Product:
    """See Fp8Weight: E4M3 codes [n, k rounded up]."""

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.n, self.k, self.bias = form.n, form.k, bias
        self.codes = pad(form.codes, (0, -form.k % K_MULTIPLE)).contiguous()
        self.codes = self.codes.view(torch.float8_e4m3fn)
        self.scale = form.scale.half() if form.scale_format == "fp16" else form.scale

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
        codes, x_scale = round_rows(x, padded)
        tiles = tuning.TileGrid(rows, self.n, padded, processors(x.device), split)
        most = tiles.most_splits(product_kernel.configs)
        shape = (most, rows, self.n) if most > 1 else (1, 1, 1)
        sums = torch.empty(shape, dtype=torch.float32, device=x.device)
        others = (
            sums, codes, self.codes, self.scale, x_scale, x if self.bias is None else self.bias,
            x if residual is None else residual, rows, self.n, padded, rows_bucket(rows),
        )  # fmt: skip
        meta = {"BIAS": self.bias is not None, "RESIDUAL": residual is not None}
        on_cpu = x.device.type == "cpu"

        def launch(y: torch.Tensor) -> None:
            product_kernel[tiles.grid](y, *others, **meta, FP32_DOT=on_cpu)

        key = (OP, rows_bucket(rows), self.n, padded, x.device, x.dtype, *meta.values())
        with on(x.device):
            tuning.launch_tuned((*key, self.scale.dtype), launch, out)
        # That of the launch just before: its own key's.
        _, used = tiles.grid(product_kernel.best_config.kwargs)
        if used > 1:
            finish(out, sums, used, self.scale, x_scale, self.bias, residual)
        return out

    def undo(self) -> LowBit:
        """The canonical form."""
        kept = "fp16" if self.scale.dtype is torch.float16 else "fp32"
        codes = self.codes.view(torch.uint8)[:, : self.k].contiguous()
        return LowBit(codes, self.scale.float(), None, 8, self.k, "e4m3", scale_format=kept)

    def tensors(self) -> list[torch.Tensor]:
        """Codes and scales."""
        return [self.codes, self.scale]
