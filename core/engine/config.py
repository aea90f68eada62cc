"""Owns what a Llama-family decoder is shaped like, and reading that from a config.json.

It checks that the engine can honour every field; it does not check weights (see core.loading) and
needs no torch. Anything that would change the result and is not supported is a BadInput.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.errors import BadInput

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ROPE_KINDS = ("default", "linear", "llama3")
FILE = "config.json"


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies shrink: `linear` divides all by `factor`, `llama3` the low ones.

    The three last fields belong to `llama3` only (Llama 3.1, transformers' `rope_type: llama3`).
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True)
class DecoderConfig:
    """Shape and constants of a decoder of the Llama family.

    `intermediate_sizes` has one MLP width per layer, so that pruning may leave layers uneven.
    `sliding_window` counts the tokens a position sees, itself included; None sees all.
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_sizes: tuple[int, ...]
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    max_positions: int = 2048
    tied_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.intermediate_sizes) != self.num_layers:
            raise BadInput(
                f"{FILE}: {len(self.intermediate_sizes)} intermediate sizes for "
                f"{self.num_layers} layers; give one per layer."
            )
        if self.num_heads % self.num_kv_heads:
            raise BadInput(
                f"{FILE}: num_attention_heads ({self.num_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_kv_heads})."
            )
        if self.head_dim % 2:
            raise BadInput(f"{FILE}: head_dim ({self.head_dim}) must be even for rotary positions.")

    @property
    def query_size(self) -> int:
        """Rows of the query projection."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Rows of the key projection, and of the value projection."""
        return self.num_kv_heads * self.head_dim

    def with_intermediate_sizes(self, sizes: tuple[int, ...]) -> DecoderConfig:
        """The same decoder with other MLP widths."""
        return replace(self, intermediate_sizes=sizes)

    def inverse_frequencies(self) -> list[float]:
        """Rotary inverse frequencies, head_dim / 2 numbers (Su et al. 2021), scaled as configured.

        The llama3 rule keeps short wavelengths, divides long ones by the factor and blends between.
        """
        half = self.head_dim // 2
        plain = [self.rope_theta ** (-2.0 * i / self.head_dim) for i in range(half)]
        scaling = self.rope_scaling
        if scaling is None:
            return plain
        if scaling.kind == "linear":
            return [f / scaling.factor for f in plain]
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        result = []
        for f in plain:
            turns = scaling.original_max_positions * f / (2 * math.pi)
            keep = min(1.0, max(0.0, (turns - low) / (high - low)))
            result.append((1 - keep) * f / scaling.factor + keep * f)
        return result

    def to_hf(self) -> dict[str, Any]:
        """A config.json for `from_hf`; transformers reads it too where the MLPs are even."""
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if self.rope_scaling is not None:
            rope |= {"rope_type": self.rope_scaling.kind, "factor": self.rope_scaling.factor}
            if self.rope_scaling.kind == "llama3":
                rope |= {
                    "low_freq_factor": self.rope_scaling.low_freq_factor,
                    "high_freq_factor": self.rope_scaling.high_freq_factor,
                    "original_max_position_embeddings": self.rope_scaling.original_max_positions,
                }
        eos = list(self.eos_token_ids)
        fields: dict[str, Any] = {
            "model_type": self.family,
            "architectures": [_ARCHITECTURES[self.family]],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": max(self.intermediate_sizes),
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope,
            "tie_word_embeddings": self.tied_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos[0] if len(eos) == 1 else (eos or None),
        }
        if self.family == "llama":
            fields |= {"attention_bias": self.qkv_bias, "mlp_bias": self.mlp_bias}
        if self.family == "qwen3":
            fields["attention_bias"] = self.qkv_bias
        if self.family == "mistral":
            fields["sliding_window"] = self.sliding_window
        if self.family in ("qwen2", "qwen3"):
            fields |= {
                "use_sliding_window": self.sliding_window is not None,
                "sliding_window": self.sliding_window,
                "max_window_layers": 0 if self.sliding_window else self.num_layers,
            }
        if len(set(self.intermediate_sizes)) > 1:
            fields["intermediate_sizes"] = list(self.intermediate_sizes)
        return fields


_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_DEFAULT_EPS = 1e-6
_DEFAULT_POSITIONS = {"llama": 2048, "mistral": 131072, "qwen2": 32768, "qwen3": 32768}


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Read a parsed config.json of model_type llama, mistral, qwen2 or qwen3.

    Raises BadInput with one sentence for a missing or wrong field, and for anything that would
    change the logits and is not supported.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise BadInput(
            f"{FILE}: model_type {family!r} is not one of {', '.join(FAMILIES)} "
            "that the lean decoder runs."
        )
    fields = _Fields(config)
    fields.refuse_unknown_numerics()
    hidden = fields.integer("hidden_size", 1, 1 << 20)
    layers = fields.integer("num_hidden_layers", 1, 1024)
    heads = fields.integer("num_attention_heads", 1, 4096)
    kv_heads = fields.integer("num_key_value_heads", 1, 4096, default=heads)
    head_dim = fields.integer(
        "head_dim", 2, 4096, default=128 if family == "qwen3" else hidden // heads
    )
    max_positions = fields.integer(
        "max_position_embeddings", 1, 1 << 28, default=_DEFAULT_POSITIONS[family]
    )
    theta, scaling = _rope(fields, max_positions)
    attention_bias = family in ("llama", "qwen3") and fields.flag("attention_bias")
    return DecoderConfig(
        family=family,
        vocab_size=fields.integer("vocab_size", 1, 1 << 24),
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_sizes=_intermediate_sizes(fields, layers),
        rms_norm_eps=fields.number("rms_norm_eps", 0.0, 1.0, default=_DEFAULT_EPS),
        rope_theta=theta,
        rope_scaling=scaling,
        max_positions=max_positions,
        tied_embeddings=fields.flag("tie_word_embeddings"),
        qkv_bias=family == "qwen2" or attention_bias,
        o_bias=attention_bias,
        mlp_bias=family == "llama" and fields.flag("mlp_bias"),
        qk_norm=family == "qwen3",
        sliding_window=_sliding_window(fields, family, layers),
        bos_token_id=fields.integer("bos_token_id", 0, 1 << 24, default=None),
        eos_token_ids=_eos(config.get("eos_token_id")),
    )


class _Fields:
    """Typed reads of a config, each refusing with the field's name."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def integer(self, name: str, low: int, high: int, default: Any = ...) -> Any:
        value = self.config.get(name)
        if value is None:
            if default is ...:
                raise BadInput(f"{FILE}: {name} is missing.")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            shown = f"{value!r}"[:60]
            raise BadInput(f"{FILE}: {name} must be an integer from {low} to {high}, not {shown}.")
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.config.get(name)
        return default if value is None else number(name, value, low, high)

    def flag(self, name: str) -> bool:
        value = self.config.get(name)
        if value is not None and not isinstance(value, bool):
            raise BadInput(f"{FILE}: {name} must be true or false, not {value!r:.60}.")
        return bool(value)

    def refuse_unknown_numerics(self) -> None:
        act = self.config.get("hidden_act", "silu")
        if act not in ("silu", "swish"):
            raise BadInput(f"{FILE}: hidden_act {act!r} is not supported, only silu is.")
        for name in ("quantization_config", "compression_config"):
            if self.config.get(name):
                raise BadInput(
                    f"{FILE}: {name} says the weights are already quantized; "
                    "use the model's unquantized weights."
                )
        pretraining_tp = self.config.get("pretraining_tp")
        if pretraining_tp not in (None, 1):
            raise BadInput(
                f"{FILE}: pretraining_tp {pretraining_tp!r} is not supported, only 1 is."
            )


def number(name: str, value: Any, low: float, high: float) -> float:
    """`value` as a finite float in [low, high]; BadInput names the field otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{FILE}: {name} must be a number, not {value!r:.60}.")
    if not low <= value <= high or not math.isfinite(value):
        raise BadInput(f"{FILE}: {name} must be from {low:g} to {high:g}, not {value!r:.60}.")
    return float(value)


def _rope(fields: _Fields, max_positions: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling from rope_parameters (transformers 5) or rope_theta and rope_scaling."""
    rope: dict[str, Any] = {}
    for name in ("rope_parameters", "rope_scaling"):
        value = fields.config.get(name)
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise BadInput(f"{FILE}: {name} must be an object or null.")
        rope = rope | dict(value)
    theta = rope.get("rope_theta", fields.config.get("rope_theta"))
    base = 10000.0 if theta is None else number("rope_theta", theta, 1.0, 1e12)
    for source in (rope, fields.config):
        if source.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise BadInput(f"{FILE}: partial_rotary_factor other than 1 is not supported.")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE_KINDS:
        raise BadInput(
            f"{FILE}: rope type {kind!r:.60} is not supported, only {', '.join(ROPE_KINDS)} are."
        )
    if kind == "default":
        return base, None
    for name in ("factor", "low_freq_factor", "high_freq_factor")[: 1 if kind == "linear" else 3]:
        if name not in rope:
            raise BadInput(f"{FILE}: {name} is missing from the {kind} rope scaling.")
    factor = number("factor", rope["factor"], 1.0, 1e6)
    if kind == "linear":
        return base, RopeScaling("linear", factor)
    low = number("low_freq_factor", rope["low_freq_factor"], 1e-6, 1e6)
    high = number("high_freq_factor", rope["high_freq_factor"], 1e-6, 1e6)
    if high <= low:
        raise BadInput(f"{FILE}: high_freq_factor must be greater than low_freq_factor.")
    original = rope.get("original_max_position_embeddings", max_positions)
    original = int(number("original_max_position_embeddings", original, 1, 1 << 28))
    return base, RopeScaling("llama3", factor, low, high, original)


def _intermediate_sizes(fields: _Fields, layers: int) -> tuple[int, ...]:
    sizes = fields.config.get("intermediate_sizes")
    if sizes is None:
        return (fields.integer("intermediate_size", 1, 1 << 22),) * layers
    if not isinstance(sizes, list) or len(sizes) != layers:
        raise BadInput(f"{FILE}: intermediate_sizes must list one width for each of the layers.")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 1 << 22:
            raise BadInput(f"{FILE}: intermediate_sizes must hold integers from 1 to {1 << 22}.")
    return tuple(sizes)


def _sliding_window(fields: _Fields, family: str, layers: int) -> int | None:
    """One window for all layers or None; a mix of both is refused."""
    window: int | None = fields.integer("sliding_window", 1, 1 << 28, default=None)
    kinds = fields.config.get("layer_types")
    if family == "mistral" and "sliding_window" not in fields.config:
        window = 4096
    if family in ("qwen2", "qwen3"):
        if not fields.flag("use_sliding_window"):
            window = None
        elif kinds is None:
            first = fields.integer("max_window_layers", 0, 1 << 20, default=28)
            kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    if family == "llama":
        window = None
    if kinds is None:
        return window
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise BadInput(f"{FILE}: layer_types must list one kind for each of the layers.")
    if window is None or all(kind == "full_attention" for kind in kinds):
        if all(kind == "full_attention" for kind in kinds):
            return window if family == "mistral" else None
        raise BadInput(f"{FILE}: layer_types asks for other attention than sliding_window gives.")
    if all(kind == "sliding_attention" for kind in kinds):
        return window
    raise BadInput(f"{FILE}: layer_types mixes kinds of attention, which is not supported.")


def _eos(value: Any) -> tuple[int, ...]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise BadInput(f"{FILE}: eos_token_id must be a token id or a list of them.")
    return tuple(ids)
