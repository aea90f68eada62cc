"""Owns a decoder's way back into tensors of Hugging Face's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from core.files import lean_layer
from core.files.formats.layout import stacks

if TYPE_CHECKING:
    from core.engine.decoder import Decoder


def export(decoder: Decoder) -> dict[str, Tensor]:
    """See Decoder.export_tensors."""
    tensors = {lean_layer.EMBEDDING.tensor: decoder.embedding} | dict(decoder.norms())
    linears = dict(decoder.linears())
    for stack in stacks(decoder.config):
        linear = linears[stack.name]
        if linear.weight is decoder.embedding:
            continue
        weight = linear.dense().to(decoder.dtype)
        for begin, end, module in stack.spans():
            tensors[f"{module}.weight"] = weight[begin:end].contiguous()
            if linear.bias is not None:
                tensors[f"{module}.bias"] = linear.bias[begin:end].contiguous()
    return tensors | {lean_layer.FINAL_NORM.tensor: decoder.final_norm}
