"""Owns AWQ's scales of input columns: how they are searched, and where they are folded in.

AWQ: Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and
Acceleration". Folding leaves the model's function as it was; rounding is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from core.engine.decoder import Layer
from core.files.config.decoder_config import DecoderConfig
from core.files.lean_layer import NAMES as MATRICES
from core.files.lean_layer import NORMED
from core.techniques.solve.clipping import fill_dead, group_blocks, search_scales
from core.techniques.solve.gptq_rounding import Grid
from core.techniques.solve.inputs import Inputs
from core.techniques.solve.smoothquant import Folded, through_norm
from kernels.linear_lowbit.codes import LowBit, grouped, nearest

# alpha = 0, 1 / 20, ... 19 / 20, as the paper's implementation.
ALPHAS = 20
# A group this long is clipped by the inputs' squares alone: its block would cost too much.
LONGEST_BLOCK = 1024
SMALLEST = 1e-4


@dataclass(frozen=True)
class Shared:
    """Columns of `o` that come from one row of v: `heads` query heads on `kv_heads`, each `dim`."""

    heads: int
    kv_heads: int
    dim: int

    def mean(self, columns: Tensor) -> Tensor:
        """fp32 [kv_heads * dim] of fp32 [heads * dim]: the mean over the heads that share."""
        return columns.view(self.kv_heads, -1, self.dim).mean(dim=1).reshape(-1)

    def repeat(self, rows: Tensor) -> Tensor:
        """fp32 [heads * dim]: every row of v for each of its heads."""
        each = rows.view(self.kv_heads, 1, self.dim)
        return each.expand(-1, self.heads // self.kv_heads, -1).reshape(-1)


def search_columns(
    weight: Tensor, inputs: Inputs, grid: Grid, shared: Shared | None = None
) -> Tensor:
    """s fp32 [k] for weight fp32 [n, k]: mean|x|^alpha, its extremes balanced around 1.

    Of 20 alphas the one whose rounding Q changes the output least on the sample (equation 4):
    |(Q(W s) / s - W) x|^2. alpha = 0 is tried first: no matrix gets worse on its sample than it is
    without scales. With `shared` the columns of a v row share their s. Columns that were never
    given anything count as the mean.
    """
    size = inputs.mean_abs if shared is None else shared.repeat(shared.mean(inputs.mean_abs))
    size = size.clone()
    fill_dead(size)
    size = size.clamp(min=SMALLEST * float(size.max()))
    sample = inputs.sample
    best, least = torch.ones_like(size), float("inf")
    for step in range(ALPHAS):
        s = size.pow(step / ALPHAS)
        s = s / (s.max() * s.min()).sqrt()
        lost = grid.nearest(weight * s).dequantize().div_(s).sub_(weight)
        missed = float((sample @ lost.T).square_().sum())
        if missed < least:
            best, least = s, missed
    return best


def fold_layer(
    layer: Layer, config: DecoderConfig, inputs: dict[str, Inputs], grid: Grid
) -> dict[str, Folded]:
    """The four matrices of a layer with their scales folded in; its norms are divided.

    `o` takes its scales from the rows of v (those of heads that share them are one), `down` from
    the rows of up, the other two from the norm before. The layer's own matrices stay as they are:
    the caller replaces all four.
    """
    folds = {name: Folded.of(getattr(layer, name)) for name in MATRICES}
    qkv, o, gate_up, down = (folds[name] for name in MATRICES)
    heads = Shared(config.num_heads, config.num_kv_heads, config.head_dim)
    s = search_columns(o.weight, inputs["o"], grid, heads)
    o.scale_columns(s)
    qkv.divide_rows(config.query_size + config.kv_size, heads.mean(s))
    s = search_columns(down.weight, inputs["down"], grid)
    down.scale_columns(s)
    gate_up.divide_rows(len(s), s)
    for name, norm in NORMED:
        s = search_columns(folds[name].weight, inputs[name], grid)
        divided, s = through_norm(getattr(layer, norm), s)
        setattr(layer, norm, divided)
        folds[name].scale_columns(s)
    return folds


def clipped(weight: Tensor, sample: Tensor, grid: Grid) -> LowBit:
    """Weight fp32 [n, k] rounded to nearest, the range of each group searched for the smallest
    error of its output on sample [m, k] (the clipping search of AWQ's implementation).
    """
    k = weight.shape[1]
    size = grid.size(k)
    if size <= LONGEST_BLOCK:
        products = sample.T @ sample
        fill_dead(products.diagonal())
        blocks = group_blocks(products, size)
    else:
        squares = sample.square().sum(dim=0)
        fill_dead(squares)
        blocks = pad(squares, (0, -k % size)).view(-1, size)
    scale, zero = search_scales(weight, grid.bits, size, grid.symmetric, blocks)
    codes = nearest(grouped(weight, size), scale, zero, grid.bits, "int")
    codes = codes.view(len(weight), -1)[:, :k].contiguous()
    return LowBit(codes, scale, zero, grid.bits, size)
