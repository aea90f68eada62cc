"""Slice the MLP matrices of a lean decoder to the channels that matter most."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from core.deployment import Deployment
from core.engine.linear import DENSE, Linear
from core.errors import Refused
from core.techniques.quantize.replace import lean

MULTIPLE = 32


def channel_scores(gate_up: Tensor, down: Tensor) -> Tensor:
    """float32 [I]: ||gate row|| ||up row|| ||down column|| of every channel, for gate_up [2 I, K]
    and down [K, I].

    The product bounds what the channel can add to the output: y = down[:, i] silu(gate[i] x) (up[i]
    x).
    """
    gate, up = gate_up.float().chunk(2)
    scores: Tensor = gate.norm(dim=1) * up.norm(dim=1) * down.float().norm(dim=0)
    return scores


def kept_width(width: int, sparsity: float) -> int:
    """Channels that stay: the nearest multiple of 32 to (1 - sparsity) width, at least 32 and under
    `width`.
    """
    wanted = round(width * (1 - sparsity) / MULTIPLE) * MULTIPLE
    return max(MULTIPLE, min(wanted, (width - 1) // MULTIPLE * MULTIPLE))


def slice_mlp(deployment: Deployment, sparsity: float) -> None:
    """Keep the best channels of every layer, in their order; Refused when a layer is too narrow to
    cut.
    """
    engine = lean(deployment, "pruning MLP channels")
    sizes = []
    for index, (layer, width) in enumerate(
        zip(engine.layers, engine.config.intermediate_sizes, strict=True)
    ):
        if width <= MULTIPLE:
            raise Refused(
                f"prune-mlp: layer {index} has only {width} MLP channels, there is nothing to cut"
            )
        if not {layer.gate_up.format, layer.down.format} <= DENSE.keys():
            raise Refused("prune-mlp: the weights are already quantized; prune before quantizing")
        gate_up, down = layer.gate_up.dense(), layer.down.dense()
        kept = kept_width(width, sparsity)
        chosen = channel_scores(gate_up, down).topk(kept).indices.sort().values
        rows = torch.cat([chosen, chosen + width])
        bias = None if layer.gate_up.bias is None else layer.gate_up.bias[rows]
        layer.gate_up = Linear.from_dense(gate_up[rows], bias, layer.gate_up.format)
        layer.down = Linear.from_dense(down[:, chosen], layer.down.bias, layer.down.format)
        sizes.append(kept)
        deployment.report((index + 1) / len(engine.layers))
    before = engine.config.intermediate_sizes
    engine.config = replace(engine.config, intermediate_sizes=tuple(sizes))
    deployment.note(
        f"MLP channels went from {before[0]} to {sizes[0]} in each of {len(sizes)} layers"
    )
