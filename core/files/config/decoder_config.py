"""Owns what a Llama-family decoder is shaped like, and how that is written as a config.json.

Reading a config.json is core.files.config.hf_config's. It needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from core.errors import BadInput
from core.files.architectures import FAMILIES

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
        """A config.json that from_hf reads; transformers too where the MLPs are even."""
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if self.rope_scaling is not None:
            rope |= {"rope_type": self.rope_scaling.kind, "factor": self.rope_scaling.factor}
            if self.rope_scaling.kind == "llama3":
                rope |= {
                    "low_freq_factor": self.rope_scaling.low_freq_factor,
                    "high_freq_factor": self.rope_scaling.high_freq_factor,
                    "original_max_position_embeddings": self.rope_scaling.original_max_positions,
                }
        eos, described = list(self.eos_token_ids), FAMILIES[self.family]
        fields: dict[str, Any] = {
            "model_type": self.family,
            "architectures": [described.lean.model_class] if described.lean else [],
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
        asked = {bias for *_, bias in (*described.attention, *described.mlp)}
        if ("attention_bias", False) in asked:
            fields["attention_bias"] = self.qkv_bias
        if ("mlp_bias", False) in asked:
            fields["mlp_bias"] = self.mlp_bias
        if described.window is not None:
            if described.window.asked:
                fields["use_sliding_window"] = self.sliding_window is not None
            fields["sliding_window"] = self.sliding_window
            if described.window.asked:
                fields["max_window_layers"] = 0 if self.sliding_window else self.num_layers
        if len(set(self.intermediate_sizes)) > 1:
            fields["intermediate_sizes"] = list(self.intermediate_sizes)
        return fields
