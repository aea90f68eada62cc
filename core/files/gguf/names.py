"""Owns what llama.cpp calls a model's tensors, and in which order the rows of a matrix lie there.

Architectures llama (also for Mistral), qwen2 and qwen3. It needs no torch at import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.files import lean_layer
from core.files.architectures import FAMILIES
from core.files.config.decoder_config import DecoderConfig

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURES = {
    name: family.lean.gguf for name, family in FAMILIES.items() if family.lean is not None
}
NAMES = {norm.module: norm.gguf for norm in lean_layer.NORMS} | {
    part.module: part.gguf for matrix in lean_layer.MATRICES for part in matrix.parts
}
TOP = {
    tensor.module: tensor.gguf
    for tensor in (lean_layer.EMBEDDING, lean_layer.FINAL_NORM, lean_layer.HEAD)
}
# Modules of a llama whose rows lie in llama.cpp's own order, with the size of their rows.
TURNED = {
    part.module: part.rows for matrix in lean_layer.MATRICES for part in matrix.parts if part.turns
}
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

    size = next((TURNED[name] for name in TURNED if module.endswith(f".{name}")), None)
    if ARCHITECTURES[config.family] != "llama" or size is None:
        return None
    rows = torch.arange(lean_layer.sizes(config, 0)[size])
    return rows.view(-1, 2, config.head_dim // 2).transpose(1, 2).reshape(-1)
