"""Small random models of each family, made by transformers itself."""

from __future__ import annotations

from typing import Any

import torch

from core.engine.decoder import Decoder
from core.files.config.hf_config import from_hf

BASE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-no-groups": ("Llama", {"num_key_value_heads": 6}),
    "llama-one-kv-head": ("Llama", {"num_key_value_heads": 1}),
    "llama-head-dim-10": ("Llama", {"head_dim": 10}),
    "llama-head-dim-64": ("Llama", {"head_dim": 64, "num_attention_heads": 2}),
    "llama-head-dim-128": ("Llama", {"head_dim": 128, "num_attention_heads": 2}),
    "llama-odd-widths": ("Llama", {"intermediate_size": 77, "vocab_size": 131}),
    "llama-rope-llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-rope-linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    ),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window-5": ("Mistral", {"sliding_window": 5}),
    "qwen2": ("Qwen2", {}),
    "qwen2-window-6": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3-tied": ("Qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "qwen3-bias": ("Qwen3", {"head_dim": 8, "attention_bias": True}),
}


def transformers_model(variant: str, seed: int = 0) -> Any:
    """A small random model, float32, with norms and biases that are not ones and zeros."""
    import transformers

    name, changes = VARIANTS[variant]
    config = getattr(transformers, f"{name}Config")(
        **(BASE | {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2} | changes)
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.2)
            elif key.endswith("bias"):
                weight.normal_(0, 0.3)
            else:
                weight.uniform_(0.5, 1.5)
    return model


def cast(model: Any, dtype: torch.dtype) -> Any:
    """The parameters in another dtype. `model.to` would round the rotary frequencies too."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def lean(model: Any, dtype: str) -> Decoder:
    """The lean decoder with a transformers model's weights."""
    return Decoder.from_tensors(from_hf(model.config.to_dict()), model.state_dict(), dtype)
