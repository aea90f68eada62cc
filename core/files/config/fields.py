"""What the families call the numbers of a decoder's shape in their config.json.

The names and what is meant by leaving one out are core.files.architectures'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import BadInput
from core.files.architectures import Mixture, family_of

# Mixtral has no width of its own for experts; the others have both.
EXPERTS = ("num_local_experts", "num_experts")


def number(config: Mapping[str, Any], field: str) -> int | None:
    """The field under whichever name the config has it; None where it is left out or null.

    Raises TypeError or ValueError when it is no number, and BadInput when two names contradict.
    """
    own = family_of(config).names.get(field, field)
    numbers = {name: int(config[name]) for name in (field, own) if config.get(name) is not None}
    if len(set(numbers.values())) > 1:
        raise BadInput(
            f"config.json: {field} is {numbers[field]}, but {own} is {numbers[own]}; they are one"
            " number, so remove the wrong one."
        )
    return next(iter(numbers.values()), None)


def required(config: Mapping[str, Any], field: str) -> int:
    """As `number`; KeyError with the family's own name where it is left out."""
    value = number(config, field)
    if value is None:
        raise KeyError(family_of(config).names.get(field, field))
    return value


def intermediate(config: Mapping[str, Any], hidden: int) -> int:
    """Width of the MLP."""
    width = number(config, "intermediate_size")
    if width is None and family_of(config).four_times:
        return 4 * hidden
    return required(config, "intermediate_size")


def kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """Heads of keys and values as they are cached; as many as there are heads where nothing is
    said, and with Falcon's new architecture, whose few heads transformers copies to all.
    """
    kind = family_of(config).kv_heads
    asked = config.get("multi_query", True) and not config.get("new_decoder_architecture")
    if kind != "own":
        return 1 if asked and kind == "one" else heads
    return number(config, "num_key_value_heads") or heads


def projected_kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """Heads of keys and values as they are computed: Falcon's new architecture has few of them."""
    if config.get("model_type") == "falcon" and config.get("new_decoder_architecture"):
        return int(config.get("num_kv_heads") or heads)
    return kv_heads(config, heads)


def head_dim(config: Mapping[str, Any], hidden: int, heads: int) -> int:
    """Width of a head of attention."""
    return int(config.get("head_dim") or family_of(config).head_dim or hidden // heads)


def experts(config: Mapping[str, Any]) -> int:
    """Experts of a mixture's layer; KeyError where nothing is said."""
    counts = {int(config[name]) for name in EXPERTS if config.get(name) is not None}
    if len(counts) > 1:
        raise BadInput("config.json: num_experts and num_local_experts differ; keep one of them.")
    if not counts:
        raise KeyError(EXPERTS[config.get("model_type") != "mixtral"])
    return counts.pop()


def experts_used(config: Mapping[str, Any]) -> int:
    """Experts that each token goes through."""
    return min(int(config.get("num_experts_per_tok") or _mixture(config).used), experts(config))


def expert_width(config: Mapping[str, Any]) -> int:
    """Width of one expert's MLP."""
    return int(config[_mixture(config).width])


def shared_width(config: Mapping[str, Any]) -> int:
    """Width of the expert that every token goes through; 0 without one."""
    return int(config["shared_expert_intermediate_size"]) if _mixture(config).shared else 0


def tied(config: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding."""
    return bool(config.get("tie_word_embeddings", family_of(config).tied))


def _mixture(config: Mapping[str, Any]) -> Mixture:
    mixture = family_of(config).experts
    assert mixture is not None
    return mixture
