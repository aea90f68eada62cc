"""What the families call the numbers of a decoder's shape in their config.json.

Owns the other names of a field and the values that hold where a family leaves one out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import BadInput

_GPT = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    "intermediate_size": "n_inner", "max_position_embeddings": "n_positions",
}  # fmt: skip
# family -> field -> the family's own name of it
NAMES: dict[str, dict[str, str]] = {
    "bloom": {
        "hidden_size": "n_embed", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    },
    "falcon": {"intermediate_size": "ffn_hidden_size"},
    "gpt2": _GPT, "gpt_bigcode": _GPT, "gptj": _GPT,
    "gpt_neo": {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"},
    "opt": {"intermediate_size": "ffn_dim"},
}  # fmt: skip
# An MLP that no field describes is four times as wide as the hidden state.
FOUR_TIMES = ("bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gptj")
# They know no num_key_value_heads, whatever a config says of it.
NO_KV_HEADS = ("bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "opt")
# With their multi_query all heads share one of keys and values.
ONE_KV_HEAD = ("falcon", "gpt_bigcode")
# Where head_dim is left out it is the hidden size by heads, but for these.
HEAD_DIM = {"gemma": 256, "gemma2": 256, "gemma3_text": 256, "glm": 128, "qwen3": 128}
USED = {"mixtral": 2, "qwen2_moe": 4, "qwen3_moe": 8}
# Mixtral has no width of its own for experts; the others have both.
EXPERTS = ("num_local_experts", "num_experts")
# The head shares the embedding unless tie_word_embeddings says no.
TIED = (
    "bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode",
    "gpt_neo", "opt", "smollm3", "starcoder2",
)  # fmt: skip


def number(config: Mapping[str, Any], field: str) -> int | None:
    """The field under whichever name the config has it; None where it is left out or null.

    Raises TypeError or ValueError when it is no number, and BadInput when two names contradict.
    """
    own = NAMES.get(str(config.get("model_type")), {}).get(field, field)
    found = {name: int(config[name]) for name in (field, own) if config.get(name) is not None}
    if len(set(found.values())) > 1:
        raise BadInput(
            f"config.json: {field} is {found[field]}, but {own} is {found[own]}; they are one"
            " number, so remove the wrong one."
        )
    return next(iter(found.values()), None)


def required(config: Mapping[str, Any], field: str) -> int:
    """As `number`; KeyError with the family's own name where it is left out."""
    found = number(config, field)
    if found is None:
        raise KeyError(NAMES.get(str(config.get("model_type")), {}).get(field, field))
    return found


def intermediate(config: Mapping[str, Any], hidden: int) -> int:
    """Width of the MLP."""
    found = number(config, "intermediate_size")
    if found is None and config.get("model_type") in FOUR_TIMES:
        return 4 * hidden
    return required(config, "intermediate_size")


def kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """Heads of keys and values as they are cached; as many as there are heads where nothing is
    said, and with Falcon's new architecture, whose few heads transformers copies to all.
    """
    family = config.get("model_type")
    asked = config.get("multi_query", True) and not config.get("new_decoder_architecture")
    if asked and family in ONE_KV_HEAD:
        return 1
    if family in NO_KV_HEADS:
        return heads
    return number(config, "num_key_value_heads") or heads


def projected_kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """Heads of keys and values as they are computed: Falcon's new architecture has few of them."""
    if config.get("model_type") == "falcon" and config.get("new_decoder_architecture"):
        return int(config.get("num_kv_heads") or heads)
    return kv_heads(config, heads)


def head_dim(config: Mapping[str, Any], hidden: int, heads: int) -> int:
    """Width of a head of attention."""
    default = HEAD_DIM.get(str(config.get("model_type")), hidden // heads)
    return int(config.get("head_dim") or default)


def experts(config: Mapping[str, Any]) -> int:
    """Experts of a mixture's layer; KeyError where nothing is said."""
    found = {int(config[name]) for name in EXPERTS if config.get(name) is not None}
    if len(found) > 1:
        raise BadInput("config.json: num_experts and num_local_experts differ; keep one of them.")
    if not found:
        raise KeyError(EXPERTS[config.get("model_type") != "mixtral"])
    return found.pop()


def experts_used(config: Mapping[str, Any]) -> int:
    """Experts that each token goes through."""
    return min(
        int(config.get("num_experts_per_tok") or USED[str(config["model_type"])]), experts(config)
    )


def expert_width(config: Mapping[str, Any]) -> int:
    """Width of one expert's MLP."""
    field = (
        "intermediate_size" if config.get("model_type") == "mixtral" else "moe_intermediate_size"
    )
    return int(config[field])


def shared_width(config: Mapping[str, Any]) -> int:
    """Width of the expert that every token goes through; 0 without one."""
    return (
        int(config["shared_expert_intermediate_size"])
        if config.get("model_type") == "qwen2_moe"
        else 0
    )


def tied(config: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding."""
    return bool(config.get("tie_word_embeddings", config.get("model_type") in TIED))
