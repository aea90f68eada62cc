"""Slice the MLP matrices of a lean decoder to the channels that matter most on text.

How much a channel matters is measured: weight norms know nothing of biases, nor of channels that
are never awake.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.engine.linear import DENSE, Linear
from core.engine.matrices import Matrix
from core.errors import Refused
from core.techniques.deployment import Deployment
from core.techniques.prune.width import MULTIPLE, kept_width
from core.techniques.solve.calibration import CalibrationSet, each_matrix
from core.techniques.solve.inputs import Inputs
from core.techniques.solve.matrices import lean

# Sequences of calibration text: the power of a channel needs fewer than a Hessian.
SAMPLES = 32


@dataclass(frozen=True)
class Activity:
    """What the MLP channels of one layer said on the calibration text: the mean and the mean square
    of h = silu(gate x + bias) * (up x + bias), fp64 [I] each.
    """

    mean: Tensor
    square: Tensor


def channel_scores(activity: Activity, down: Tensor, folds: bool) -> Tensor:
    """fp64 [I]: the mean squared change of the layer's output when one channel is removed, for down
    [H, I]: E[h_i^2] |down_i|^2.

    Where the down projection has a bias (`folds`) the mean of a removed channel goes into it, and
    only what varies is lost: Var[h_i] |down_i|^2.
    """
    power = activity.square
    if folds:
        power = (power - activity.mean.square()).clamp(min=0)
    return power * down.double().square().sum(dim=0)


def activities(deployment: Deployment) -> list[Activity]:
    """Those of every layer of a lean decoder as it is; Refused without text to calibrate on."""
    by_layer: list[Activity] = []

    def look(matrix: Matrix, inputs: Inputs) -> None:
        if matrix.name.endswith(".down"):
            by_layer.append(Activity(inputs.mean, inputs.mean_square))

    settings = CalibrationSet(samples=SAMPLES, rows=1)
    each_matrix(deployment, settings, look, second_order=False)
    return by_layer


def slice_mlp(deployment: Deployment, sparsity: float) -> None:
    """Keep the channels of every layer that say most on the calibration text, in their order;
    Refused when a layer is too narrow to cut.
    """
    engine = lean(deployment, "pruning MLP channels")
    for index, (layer, width) in enumerate(
        zip(engine.layers, engine.config.intermediate_sizes, strict=True)
    ):
        if width <= MULTIPLE:
            raise Refused(
                f"prune-mlp: layer {index} has only {width} MLP channels, there is nothing to cut"
            )
        if not {layer.gate_up.format, layer.down.format} <= DENSE.keys():
            raise Refused("prune-mlp: the weights are already quantized; prune before quantizing")
    sizes = []
    for layer, activity in zip(engine.layers, activities(deployment), strict=True):
        gate_up, down = layer.gate_up.dense(), layer.down.dense()
        width, down_bias = down.shape[1], layer.down.bias
        channels = kept_width(width, sparsity)
        scores = channel_scores(activity, down, down_bias is not None)
        chosen = scores.topk(channels).indices.sort().values
        if down_bias is not None:
            gone = torch.ones(width, dtype=torch.bool, device=down.device)
            gone[chosen] = False
            folded = down[:, gone].double() @ activity.mean[gone]
            down_bias = (down_bias.double() + folded).to(down_bias.dtype)
        rows = torch.cat([chosen, chosen + width])
        bias = None if layer.gate_up.bias is None else layer.gate_up.bias[rows]
        layer.gate_up = Linear.from_dense(gate_up[rows], bias, layer.gate_up.format)
        layer.down = Linear.from_dense(down[:, chosen], down_bias, layer.down.format)
        sizes.append(channels)
    before = engine.config.intermediate_sizes
    engine.config = replace(engine.config, intermediate_sizes=tuple(sizes))
    deployment.note(
        f"MLP channels went from {before[0]} to {sizes[0]} in each of {len(sizes)} layers"
    )
