"""Owns what the pre-flight demands of families that transformers runs for us.

Their tensors are named by transformers, so that names are judged by its own report at loading;
here a config is kept from asking for endless work, or for another computation than is measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.errors import BadInput

LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
# Upper ends of the size fields, so that a config cannot ask for endless work.
LIMITS = {
    "vocab_size": 1 << 24, "hidden_size": 1 << 20, "n_embd": 1 << 20, "d_model": 1 << 20,
    **dict.fromkeys(LAYERS, 1024), "num_attention_heads": 4096, "n_head": 4096,
    "num_key_value_heads": 4096, "intermediate_size": 1 << 22, "n_inner": 1 << 22,
    "max_position_embeddings": 1 << 28, "n_positions": 1 << 28, "head_dim": 4096,
    "num_heads": 4096, "ffn_dim": 1 << 22, "num_experts": 1024, "num_local_experts": 1024,
    "moe_intermediate_size": 1 << 22, "shared_expert_intermediate_size": 1 << 22,
    "n_embed": 1 << 20, "ffn_hidden_size": 1 << 22, "num_kv_heads": 4096,
    "word_embed_proj_dim": 1 << 20, "num_labels": 100_000, "rotary_dim": 4096,
}  # fmt: skip
MAX_NUMBER = 1 << 40
# What transformers would compute besides, or instead of, the logits of a causal model.
SWITCHES = {
    "is_causal": True, "return_dict": True, "output_attentions": False,
    "output_hidden_states": False, "output_router_logits": False, "torchscript": False,
    "is_encoder_decoder": False, "add_cross_attention": False,
}  # fmt: skip
# `transformer.h.11.attn` and the like: the first number of a name is the layer's.
_LAYER = re.compile(r"(?:^|\.)(\d{1,6})\.")


def check_config(config: Mapping[str, Any]) -> None:
    """Raise BadInput for a size out of range and for a switch that changes what is computed."""
    for field, high in LIMITS.items():
        value = config.get(field)
        if value is not None and (type(value) is not int or not 1 <= value <= high):
            shown = f"{value!r}"[:60]
            raise BadInput(
                f"config.json: {field} must be an integer from 1 to {high}, not {shown}."
            )
    if config.get("vocab_size") is None:
        raise BadInput("config.json: vocab_size is missing.")
    start = config.get("bos_token_id")
    if start is not None and (type(start) is not int or not 0 <= start < config["vocab_size"]):
        raise BadInput(f"config.json: bos_token_id {start!r:.60} is no token of the vocabulary.")
    for field, wanted in SWITCHES.items():
        if config.get(field, wanted) not in (wanted, None):
            raise BadInput(f"config.json: {field} must be {str(wanted).lower()} or left out.")
    for field in ("quantization_config", "compression_config", "per_layer_config"):
        if config.get(field):
            raise BadInput(
                f"config.json: {field} is not supported; use the model's plain, unquantized form."
            )
    _check_numbers("", config)
    _check_attention_types(config)


def check_tensors(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], file: str
) -> None:
    """Raise BadInput unless the tensors have the config's number of layers and its vocabulary."""
    indices = {int(match[1]) for match in map(_LAYER.search, shapes) if match}
    for field in LAYERS:
        layers = config.get(field)
        if layers is not None and indices != set(range(layers)):
            odd = min(indices ^ set(range(layers)))
            what = "has no tensor" if odd < layers else "is there"
            raise BadInput(f"{file}: config.json's {field} is {layers}, but layer {odd} {what}.")
    rows = config["vocab_size"]
    if not any(len(shape) == 2 and shape[0] == rows for shape in shapes.values()):
        raise BadInput(f"{file}: config.json's vocab_size is {rows}, no tensor has so many rows.")


def _check_numbers(where: str, value: Any) -> None:
    """Whole numbers that nothing of a model can have."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_numbers(f"{where}.{key}" if where else str(key), item)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(where, item)
    elif isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise BadInput(f"config.json: {where[:200]} is out of any range.")


def _check_attention_types(config: Mapping[str, Any]) -> None:
    """GPT-Neo repeats each list of kinds as often as it is told."""
    kinds = config.get("attention_types")
    if kinds is None:
        return
    whole = isinstance(kinds, list) and all(
        isinstance(kind, list)
        and len(kind) == 2
        and isinstance(kind[0], list)
        and type(kind[1]) is int
        and 1 <= kind[1] <= 1024
        for kind in kinds
    )
    if not whole:
        raise BadInput("config.json: attention_types must list pairs of kinds and a count.")
