"""Owns what llama.cpp calls a model's tensors, and in which order the rows of a matrix lie there.

Architectures llama (also for Mistral), qwen2 and qwen3. It needs no torch at import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.files.config.decoder_config import DecoderConfig

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
# Text ends at each of these in llama.cpp.
STOPS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))


def gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` -> `blk.3.ffn_up.weight`."""
    module, _, leaf = name.rpartition(".")
    if name == "rope_freqs":
        return "rope_freqs.weight"
    if module in TOP:
        return f"{TOP[module]}.{leaf}"
    layer, _, part = module.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{NAMES[part]}.{leaf}"


def order(config: DecoderConfig, module: str) -> Tensor | None:
    """The order of a module's rows: llama.cpp turns neighbours, Hugging Face halves of a head."""
    import torch

    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(
        module.rpartition(".")[2]
    )
    if ARCHITECTURES[config.family] != "llama" or heads is None:
        return None
    rows = torch.arange(heads * config.head_dim)
    return rows.view(heads, 2, config.head_dim // 2).transpose(1, 2).reshape(-1)


def hf_name(name: str) -> str:
    """`blk.3.ffn_up.weight` -> `model.layers.3.mlp.up_proj.weight`."""
    module, _, leaf = name.rpartition(".")
    top = {theirs: ours for ours, theirs in TOP.items()}
    if module in top:
        return f"{top[module]}.{leaf}"
    _, layer, part = module.split(".", 2)
    inner = {theirs: ours for ours, theirs in NAMES.items()}
    return f"model.layers.{layer}.{inner[part]}.{leaf}"
