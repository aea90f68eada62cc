"""Owns reading a Llama-family config.json: every field that changes the logits is honoured or
refused.

The defaults and the meaning of each field are those of transformers 5; torch is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from core.errors import BadInput
from core.files.architectures import FAMILIES, LEAN, Flag, SlidingWindow
from core.files.config.decoder_config import FILE, DecoderConfig, RopeScaling

ROPE_KINDS = ("default", "linear", "llama3")
_DEFAULT_EPS = 1e-6


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Read a parsed config.json of model_type llama, mistral, qwen2 or qwen3.

    Raises BadInput with one sentence for a missing or wrong field, and for anything that would
    change the logits and is not supported.
    """
    family = config.get("model_type")
    described = FAMILIES.get(family) if isinstance(family, str) else None
    if described is None or described.lean is None:
        raise BadInput(
            f"{FILE}: model_type {family!r} is not one of {', '.join(LEAN)} "
            "that the lean decoder runs."
        )
    fields = _Fields(config)
    fields.refuse_unknown_numerics()
    hidden = fields.integer("hidden_size", 1, 1 << 20)
    layers = fields.integer("num_hidden_layers", 1, 1024)
    heads = fields.integer("num_attention_heads", 1, 4096)
    kv_heads = fields.integer("num_key_value_heads", 1, 4096, default=heads)
    head_dim = fields.integer("head_dim", 2, 4096, default=described.head_dim or hidden // heads)
    max_positions = fields.integer(
        "max_position_embeddings", 1, 1 << 28, default=described.lean.positions
    )
    theta, scaling = _rope(fields, max_positions)
    vocabulary = fields.integer("vocab_size", 1, 1 << 24)
    query, out, gate = described.attention[0], described.attention[-1], described.mlp[0]
    return DecoderConfig(
        family=str(family),
        vocab_size=vocabulary,
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
        qkv_bias=fields.has(query[-1]),
        o_bias=fields.has(out[-1]),
        mlp_bias=fields.has(gate[-1]),
        qk_norm=bool(described.head_norms),
        sliding_window=_sliding_window(fields, described.window, layers),
        bos_token_id=fields.integer("bos_token_id", 0, vocabulary - 1, default=None),
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

    def has(self, bias: Flag) -> bool:
        """Whether a matrix has the bias that its family describes so."""
        return bias if isinstance(bias, bool) else self.flag(bias[0])

    def refuse_unknown_numerics(self) -> None:
        act = self.config.get("hidden_act", "silu")
        if act not in ("silu", "swish"):
            raise BadInput(f"{FILE}: hidden_act {act!r:.60} is not supported, only silu is.")
        if self.config.get("compression_config"):
            raise BadInput(
                f"{FILE}: compression_config says the weights are already quantized; "
                "use the model's unquantized weights."
            )
        if self.config.get("per_layer_config"):
            raise BadInput(f"{FILE}: per_layer_config is not supported, layers must be alike.")
        for name, wanted in (("is_causal", True), ("pretraining_tp", 1)):
            value = self.config.get(name)
            if value is not None and (type(value) is not type(wanted) or value != wanted):
                shown = str(wanted).lower()
                raise BadInput(f"{FILE}: {name} {value!r:.60} is not supported, only {shown} is.")


def number(name: str, value: Any, low: float, high: float) -> float:
    """`value` as a finite float in [low, high]; BadInput names the field otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{FILE}: {name} must be a number, not {value!r:.60}.")
    if not low <= value <= high or not math.isfinite(value):
        raise BadInput(f"{FILE}: {name} must be from {low:g} to {high:g}, not {value!r:.60}.")
    return float(value)


def _rope(fields: _Fields, max_positions: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling from rope_parameters (transformers 5) or rope_theta and rope_scaling."""
    rope = _rope_object(fields.config)
    base = 10000.0
    for source in (rope, fields.config):
        if "rope_theta" in source:
            base = number("rope_theta", source["rope_theta"], 1.0, 1e12)
            break
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
    original = _Fields(rope).integer(
        "original_max_position_embeddings", 1, 1 << 28, default=max_positions
    )
    return base, RopeScaling("llama3", factor, low, high, original)


def _rope_object(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one object that says how positions turn; transformers takes rope_scaling first."""
    rope: Mapping[str, Any] | None = None
    for name in ("rope_scaling", "rope_parameters"):
        value = config.get(name)
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise BadInput(f"{FILE}: {name} must be an object or null.")
        for key, item in value.items():
            if isinstance(item, Mapping):
                raise BadInput(
                    f"{FILE}: {name} gives {key[:60]!r} positions of its own; all layers must turn"
                    " alike."
                )
        if rope and value and dict(rope) != dict(value):
            raise BadInput(f"{FILE}: rope_scaling and rope_parameters differ; keep one of them.")
        rope = rope or value
    return rope or {}


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


def _sliding_window(fields: _Fields, slides: SlidingWindow | None, layers: int) -> int | None:
    """One window for all layers or None; a mix of both is refused."""
    window: int | None = fields.integer("sliding_window", 1, 1 << 28, default=None)
    kinds = fields.config.get("layer_types")
    always = slides is not None and not slides.asked
    if slides is not None and always and "sliding_window" not in fields.config:
        window = slides.default
    if slides is not None and slides.asked:
        if not fields.flag("use_sliding_window"):
            window = None
        elif kinds is None:
            first = fields.integer("max_window_layers", 0, 1 << 20, default=28)
            kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    if slides is None:
        window = None
    if kinds is None:
        return window
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise BadInput(f"{FILE}: layer_types must list one kind for each of the layers.")
    if window is None or all(kind == "full_attention" for kind in kinds):
        if all(kind == "full_attention" for kind in kinds):
            return window if always else None
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
