"""Owns a differentiable forward pass of a decoder's weights: the reference, and what is trained.

No cache, no kernels of ours. It computes in the dtype of its parameters, float32 unless changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from core.engine.decoder import Decoder
from core.files.config import names
from core.files.config.decoder_config import DecoderConfig
from core.files.formats.layout import EMBEDDING
from core.files.special_ids import SpecialIds


class TrainableDecoder(nn.Module):
    """The decoder of `config` with one float32 parameter per Hugging Face tensor.

    `config.intermediate_sizes` may differ by layer. Tied embeddings are one parameter.
    """

    def __init__(self, config: DecoderConfig, tensors: Mapping[str, Tensor]) -> None:
        """Copy `tensors` (any float dtype, Hugging Face names); BadInput when they do not fit."""
        super().__init__()
        names.check(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        self.config = config
        self.special_ids = SpecialIds(config.bos_token_id, config.eos_token_ids)
        self.weights = nn.ParameterDict(
            {
                _key(name): nn.Parameter(tensors[name].detach().float().clone())
                for name in names.expected(config)
            }
        )
        where = self._get(EMBEDDING).device
        self.register_buffer(
            "frequencies",
            torch.tensor(config.inverse_frequencies(), device=where),
            persistent=False,
        )

    @classmethod
    def from_decoder(cls, decoder: Decoder) -> TrainableDecoder:
        """Start from a decoder's weights; quantized matrices start from their rounded values."""
        tensors = decoder.export_tensors()
        tied = "lm_head.weight" not in tensors
        reference = cls(replace(decoder.config, tied_embeddings=tied), tensors)
        reference.special_ids = decoder.special_ids
        return reference

    def to_decoder(self, dtype: str = "bf16", device: str = "cpu") -> Decoder:
        """The lean engine with these weights, rounded to `dtype`."""
        decoder = Decoder.from_tensors(self.config, self.tensors(), dtype, device)
        decoder.special_ids = self.special_ids
        return decoder

    def tensors(self) -> dict[str, Tensor]:
        """The weights, detached, in Hugging Face names."""
        return {name: self._get(name).detach() for name in names.expected(self.config)}

    def forward(
        self, ids: Tensor, hidden_states: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Logits [B, T, V] of ids int64 [B, T].

        With `hidden_states` also the list of the embedding, each layer's output and the final norm.
        """
        at = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float32)
        angles = at[:, None] * self.get_buffer("frequencies")
        turn = angles.cos(), angles.sin()
        mask = self._mask(ids.shape[1], ids.device)
        x = self._get(EMBEDDING)[ids]
        states = [x]
        for i in range(self.config.num_layers):
            prefix = f"model.layers.{i}."
            h = self._norm(x, f"{prefix}input_layernorm.weight")
            x = x + self._attention(h, f"{prefix}self_attn.", turn, mask)
            h = self._norm(x, f"{prefix}post_attention_layernorm.weight")
            gated = silu(self.project(h, f"{prefix}mlp.gate_proj"))
            x = x + self.project(
                gated * self.project(h, f"{prefix}mlp.up_proj"), f"{prefix}mlp.down_proj"
            )
            states.append(x)
        x = self._norm(x, "model.norm.weight")
        states.append(x)
        tied = self.config.tied_embeddings
        logits = self.project(x, "model.embed_tokens" if tied else "lm_head")
        return (logits, states) if hidden_states else logits

    def project(self, x: Tensor, name: str) -> Tensor:
        """x times the matrix `name` transposed, plus its bias. Who trains beside the weights, or
        through a rounding of them, overrides this.
        """
        bias = self.weights.get(_key(f"{name}.bias"), None)
        return linear(x, self._get(f"{name}.weight"), bias)

    def _attention(
        self, x: Tensor, prefix: str, turn: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> Tensor:
        config = self.config
        batch, tokens, _ = x.shape

        def heads(part: str, count: int) -> Tensor:
            y = self.project(x, f"{prefix}{part}_proj").view(batch, tokens, count, config.head_dim)
            if config.qk_norm and part in "qk":
                y = self._norm(y, f"{prefix}{part}_norm.weight")
            return y.transpose(1, 2)

        query = _rotate(heads("q", config.num_heads), *turn)
        key = _rotate(heads("k", config.num_kv_heads), *turn)
        value = heads("v", config.num_kv_heads)
        group = config.num_heads // config.num_kv_heads
        mixed = scaled_dot_product_attention(
            query,
            key.repeat_interleave(group, dim=1),
            value.repeat_interleave(group, dim=1),
            attn_mask=mask,
            is_causal=mask is None,
        )
        return self.project(mixed.transpose(1, 2).reshape(batch, tokens, -1), f"{prefix}o_proj")

    def _mask(self, tokens: int, device: torch.device) -> Tensor | None:
        window = self.config.sliding_window
        if window is None or tokens <= window:
            return None
        seen = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
        return seen.triu(1 - window)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return self._get(name) * (x.float() * scale).to(x.dtype)

    def _get(self, name: str) -> Tensor:
        weight: Tensor = self.weights[_key(name)]
        return weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def _key(name: str) -> str:
    # Parameter names may not contain dots.
    return name.replace(".", "/")
