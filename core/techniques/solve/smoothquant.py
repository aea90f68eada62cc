"""SmoothQuant's scales and where they go, and replacing matrices by W8A8.

y = (x / s) (s W): dividing an input column by s_j and multiplying the weight's column with it
changes nothing, but moves outliers of x into W. x / s costs nothing at run time, because what
makes x takes 1 / s: the norm before qkv, gate_up and the head; the rows of v before o; the rows of
up before down. Codes are made of the fp32 product, so no 16-bit rounding comes between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.engine.decoder import Decoder, Layer
from core.engine.linear import Linear
from core.engine.matrices import Matrix
from core.errors import Refused
from core.files.config.decoder_config import DecoderConfig
from core.files.lean_layer import NAMES as MATRICES
from core.files.lean_layer import NORMED
from core.techniques.deployment import Deployment
from core.techniques.solve.calibration import CalibrationSet, each_matrix
from core.techniques.solve.inputs import Inputs
from core.techniques.solve.matrices import matrices
from kernels.linear_w8a8 import W8A8Weight, quantize
from kernels.weight import KernelWeight

if TYPE_CHECKING:
    from core.techniques.quantize.w8a8 import W8A8

# Rows of each matrix's inputs that a percentile is taken of.
SAMPLE_ROWS = 128
SMALLEST = 1e-5


@dataclass
class Folded:
    """A matrix with smoothing folded in: fp32 [n, k], fp32 bias [n] or None, and the s [k] that its
    inputs are divided by.
    """

    weight: Tensor
    bias: Tensor | None
    s: Tensor

    @classmethod
    def of(cls, linear: Linear) -> Folded:
        """The matrix as it is, in memory of its own."""
        bias = None if linear.bias is None else linear.bias.float()
        weight = linear.dense()
        if linear.dtype is torch.float32:
            weight = weight.clone()
        return cls(weight, bias, torch.ones(weight.shape[1], device=weight.device))

    def scale_columns(self, s: Tensor) -> None:
        """Multiply column j with s_j."""
        self.weight *= s
        self.s = s

    def divide_rows(self, begin: int, s: Tensor) -> None:
        """Divide the outputs from row `begin` on by s."""
        self.weight[begin : begin + len(s)] /= s[:, None]
        if self.bias is not None:
            self.bias = self.bias.clone()
            self.bias[begin : begin + len(s)] /= s


def smoothing(x_absmax: Tensor, w_absmax: Tensor, alpha: float) -> Tensor:
    """s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) (Xiao et al. 2023, equation 4), fp32 [k].

    A column that is zero in X or in W keeps s = 1.
    """
    s = x_absmax.pow(alpha) / w_absmax.clamp(min=SMALLEST).pow(1 - alpha)
    usable = (x_absmax > 0) & (w_absmax > 0) & s.isfinite()
    return torch.where(usable, s.clamp(min=SMALLEST), torch.ones_like(s))


def through_norm(norm: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """norm / s in the norm's dtype, and the s [k] that it really divides by after rounding."""
    divided = (norm.float() / s).to(norm.dtype)
    exact = norm.float() / divided.float()
    # A norm weight of zero gives zero inputs, whatever s.
    return divided, torch.where(exact.isfinite() & (exact > 0), exact, torch.ones_like(exact))


def smooth_layer(
    layer: Layer, config: DecoderConfig, absmax: dict[str, Tensor], alpha: float
) -> dict[str, Folded]:
    """The four matrices of a layer with their inputs' outliers folded in; its norms are divided.

    `absmax` has max|X_j|, fp32 [k], by the matrix's name. Heads that share a head of v share their
    s. The layer's own matrices stay as they are: the caller replaces all four.
    """
    folds = {name: Folded.of(getattr(layer, name)) for name in MATRICES}
    qkv, o, gate_up, down = (folds[name] for name in MATRICES)
    shared = (config.num_kv_heads, -1, config.head_dim)

    def of_v(columns: Tensor) -> Tensor:
        return columns.view(shared).amax(dim=1)

    s = smoothing(of_v(absmax["o"]), of_v(columns_of(o)), alpha)
    group = config.num_heads // config.num_kv_heads
    o.scale_columns(s[:, None].expand(-1, group, -1).reshape(-1))
    qkv.divide_rows(config.query_size + config.kv_size, s.reshape(-1))
    s = smoothing(absmax["down"], columns_of(down), alpha)
    down.scale_columns(s)
    gate_up.divide_rows(len(s), s)
    for name, norm in NORMED:
        s = smoothing(absmax[name], columns_of(folds[name]), alpha)
        divided, s = through_norm(getattr(layer, norm), s)
        setattr(layer, norm, divided)
        folds[name].scale_columns(s)
    return folds


def columns_of(matrix: Folded) -> Tensor:
    """max|W_j| of every column, fp32 [k]."""
    return matrix.weight.abs().amax(dim=0)


def apply_w8a8(deployment: Deployment, settings: W8A8) -> None:
    """Replace every matrix by W8A8; smoothed ones need the lean decoder. Raises Refused."""
    engine = deployment.engine
    before = engine.weight_bytes()
    if engine.lean is not None:
        _apply_to_decoder(deployment, engine.lean, settings)
    elif settings.smooth:
        raise Refused(
            f"w8a8: smooth needs a model of the Llama family, whose norms take the scales;"
            f" {deployment.case.model.id} is {deployment.case.model.family}; use smooth=0"
        )
    elif settings.mode == "static":
        each_matrix(deployment, _calibration(settings), _choose_static(settings), False)
    else:
        targets = matrices(deployment)
        for index, matrix in enumerate(targets):
            matrix.replace(_rounded(matrix.dense(), matrix.bias, matrix.dtype))
            deployment.report((index + 1) / len(targets))
    smoothed = f", smoothed with alpha {settings.smooth:g}" if settings.smooth else ""
    deployment.note(
        f"w8a8 {settings.mode}{smoothed}: weights went from {before:,} to"
        f" {engine.weight_bytes():,} bytes"
    )


def _apply_to_decoder(deployment: Deployment, engine: Decoder, settings: W8A8) -> None:
    seen: dict[str, Inputs] = {}
    if settings.smooth or settings.mode == "static":
        # All of the unchanged model: the scales are those of one function.
        each_matrix(deployment, _calibration(settings), _remember(seen), second_order=False)

    def replaced(linear: Linear, name: str, folded: Folded) -> Linear:
        x_scale = None
        if settings.mode == "static":
            x_scale = static_scale(seen[name], folded.s, settings.percentile)
        bias = None if folded.bias is None else folded.bias.to(linear.dtype)
        return Linear.from_kernel(_rounded(folded.weight, bias, linear.dtype, x_scale))

    for index, layer in enumerate(engine.layers):
        at = f"layers.{index}."
        if settings.smooth:
            absmax = {name: seen[at + name].absmax for name in MATRICES}
            folds = smooth_layer(layer, engine.config, absmax, settings.smooth)
        else:
            folds = {name: Folded.of(getattr(layer, name)) for name in MATRICES}
        for name, folded in folds.items():
            setattr(layer, name, replaced(getattr(layer, name), at + name, folded))
        deployment.report((index + 1) / (len(engine.layers) + 1))
    head = Folded.of(engine.head)
    if settings.smooth:
        s = smoothing(seen["head"].absmax, columns_of(head), settings.smooth)
        engine.final_norm, s = through_norm(engine.final_norm, s)
        head.scale_columns(s)
    engine.head = replaced(engine.head, "head", head)


def static_scale(inputs: Inputs, s: Tensor, percentile: float) -> float:
    """The one scale of x / s: the percentile of |x / s| over 127; absmax when it is 100."""
    if percentile == 100:
        most = float((inputs.absmax / s).max())
    else:
        sizes = (inputs.sample / s).abs().flatten()
        rank = max(1, min(sizes.numel(), round(sizes.numel() * percentile / 100)))
        most = float(sizes.kthvalue(rank).values)
    # Inputs that are always zero need no scale, but one is asked for.
    return most / 127 if most > 1e-20 else 1.0


def _calibration(settings: W8A8) -> CalibrationSet:
    return CalibrationSet(rows=SAMPLE_ROWS if settings.percentile < 100 else 8)


def _remember(seen: dict[str, Inputs]) -> Callable[[Matrix, Inputs], None]:
    def choose(matrix: Matrix, inputs: Inputs) -> None:
        seen[matrix.name] = inputs

    return choose


def _choose_static(settings: W8A8) -> Callable[[Matrix, Inputs], KernelWeight]:
    def choose(matrix: Matrix, inputs: Inputs) -> KernelWeight:
        scale = static_scale(inputs, torch.ones_like(inputs.absmax), settings.percentile)
        return _rounded(matrix.dense(), matrix.bias, matrix.dtype, scale)

    return choose


def _rounded(
    weight: Tensor, bias: Tensor | None, dtype: torch.dtype, x_scale: float | None = None
) -> W8A8Weight:
    return W8A8Weight(quantize(weight, x_scale), bias, dtype)
