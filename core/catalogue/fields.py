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
# With their multi_query all heads share one of keys and values.
ONE_KV_HEAD = ("falcon", "gpt_bigcode")
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
    one = config.get("multi_query") and not config.get("new_decoder_architecture")
    if one and config.get("model_type") in ONE_KV_HEAD:
        return 1
    return number(config, "num_key_value_heads") or heads


def tied(config: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding."""
    return bool(config.get("tie_word_embeddings", config.get("model_type") in TIED))
