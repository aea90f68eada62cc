"""How many tokens the attention of each layer sees: the sliding windows of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where sliding_window is left out. These families slide in every layer that has one.
_DEFAULT = {"mistral": 4096, "gemma2": 4096, "gemma3_text": 4096, "qwen2": 4096, "qwen3": 4096,
            "qwen2_moe": 4096, "qwen3_moe": 4096}  # fmt: skip
_EVERY = ("mistral", "mixtral", "phi3", "starcoder2", "qwen3_moe")
# Without this field they do not slide, whatever sliding_window says.
_ASKED = ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "smollm3")
_MIXED = ("gemma2", "gemma3_text", "qwen2", "qwen3", "qwen2_moe", "smollm3")


def windows(config: Mapping[str, Any], layers: int) -> list[int]:
    """Tokens that a position sees in each layer, itself included; 0 where it sees all."""
    family = str(config.get("model_type"))
    window = config.get("sliding_window", _DEFAULT.get(family))
    if family not in (*_EVERY, *_MIXED) or not window:
        return [0] * layers
    if family in _ASKED and not config.get("use_sliding_window"):
        return [0] * layers
    return [int(window) if slides else 0 for slides in _sliding(family, config, layers)]


def _sliding(family: str, config: Mapping[str, Any], layers: int) -> list[bool]:
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers and family != "mistral":
        return [kind == "sliding_attention" for kind in kinds]
    if family in _EVERY:
        return [True] * layers
    if family == "gemma2":
        return [i % 2 == 0 for i in range(layers)]
    if family == "gemma3_text":
        period = int(config.get("sliding_window_pattern") or 6)
        return [(i + 1) % period != 0 for i in range(layers)]
    first = int(config.get("max_window_layers", 28))
    if family == "qwen2_moe":
        return [i % 2 == 0 and i < first for i in range(layers)]
    if family == "smollm3":
        turning = config.get("no_rope_layers")
        if not isinstance(turning, list):
            period = int(config.get("no_rope_layer_interval") or 4)
            turning = [int((i + 1) % period != 0) for i in range(layers)]
        return [not one for one in turning]
    return [i >= first for i in range(layers)]
