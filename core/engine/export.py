"""Owns a decoder's way back into tensors of Hugging Face's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from core.engine.decoder import Decoder


def export(decoder: Decoder) -> dict[str, Tensor]:
    """See Decoder.export_tensors."""
    config = decoder.config
    tensors: dict[str, Tensor] = {"model.embed_tokens.weight": decoder.embedding}
    for i, layer in enumerate(decoder.layers):
        at = f"model.layers.{i}."
        tensors[f"{at}input_layernorm.weight"] = layer.attn_norm
        tensors[f"{at}post_attention_layernorm.weight"] = layer.mlp_norm
        if layer.q_norm is not None and layer.k_norm is not None:
            tensors[f"{at}self_attn.q_norm.weight"] = layer.q_norm
            tensors[f"{at}self_attn.k_norm.weight"] = layer.k_norm
        width = layer.down.in_features
        for linear, parts in (
            (layer.qkv, {"self_attn.q_proj": config.query_size, "self_attn.k_proj": config.kv_size,
                         "self_attn.v_proj": config.kv_size}),
            (layer.o, {"self_attn.o_proj": config.hidden_size}),
            (layer.gate_up, {"mlp.gate_proj": width, "mlp.up_proj": width}),
            (layer.down, {"mlp.down_proj": config.hidden_size}),
        ):  # fmt: skip
            weight, row = linear.dense().to(decoder.dtype), 0
            for name, rows in parts.items():
                tensors[f"{at}{name}.weight"] = weight[row : row + rows].contiguous()
                if linear.bias is not None:
                    tensors[f"{at}{name}.bias"] = linear.bias[row : row + rows].contiguous()
                row += rows
    tensors["model.norm.weight"] = decoder.final_norm
    if decoder.head.weight is not decoder.embedding:
        tensors["lm_head.weight"] = decoder.head.dense().to(decoder.dtype)
    return tensors
