"""How many tokens the attention of each layer sees: the sliding windows of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.files.architectures import SlidingWindow, family_of


def windows(config: Mapping[str, Any], layers: int) -> list[int]:
    """Tokens that a position sees in each layer, itself included; 0 where it sees all."""
    slides = family_of(config).window
    tokens = config.get("sliding_window", slides.default if slides else None)
    if slides is None or not tokens or (slides.asked and not config.get("use_sliding_window")):
        return [0] * layers
    return [int(tokens) if sliding else 0 for sliding in _sliding(slides, config, layers)]


def _sliding(slides: SlidingWindow, config: Mapping[str, Any], layers: int) -> list[bool]:
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers and slides.listed:
        return [kind == "sliding_attention" for kind in kinds]
    match slides.pattern:
        case "every":
            return [True] * layers
        case "alternate":
            return [i % 2 == 0 for i in range(layers)]
        case "periodic":
            period = int(config.get("sliding_window_pattern") or 6)
            return [(i + 1) % period != 0 for i in range(layers)]
        case "no_rope":
            turning = config.get("no_rope_layers")
            if not isinstance(turning, list):
                period = int(config.get("no_rope_layer_interval") or 4)
                turning = [int((i + 1) % period != 0) for i in range(layers)]
            return [not rope for rope in turning]
    first = int(config.get("max_window_layers", 28))
    if slides.pattern == "early":
        return [i % 2 == 0 and i < first for i in range(layers)]
    return [i >= first for i in range(layers)]
