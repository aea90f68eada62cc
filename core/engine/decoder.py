"""Owns the lean decoder of the Llama family: its weights, and the forward pass over them.

It knows nothing of tokens as text, of files, and of how a technique makes a matrix smaller.
A prompt runs through torch; a step of a few tokens runs through bound kernels
(core.engine.passes.step), on a GPU as a captured graph (core.engine.passes.captured_step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.engine.cache.contiguous import KVCache, Rows
from core.engine.cache.quantized import QuantizedCache
from core.engine.export import export
from core.engine.held import HeldByDecoder
from core.engine.linear import DENSE, Linear
from core.engine.passes import step
from core.engine.passes.captured_step import CapturedStep, fits
from core.engine.passes.graph import Graphs
from core.engine.passes.rotary import Rotary
from core.engine.passes.step import Step
from core.engine.passes.token_ids import check_ids
from core.errors import BadInput
from core.files import lean_layer
from core.files.config import names
from core.files.config.decoder_config import DecoderConfig
from core.files.formats.layout import EMBEDDING, Stack, stacks
from core.files.lean_layer import FINAL_NORM
from core.files.lean_layer import NAMES as MATRICES
from core.files.special_ids import SpecialIds
from kernels.attention import Heads
from kernels.kv_codes import KVFormat
from kernels.rms_norm import rms_norm
from kernels.swiglu import swiglu


@dataclass
class Layer:
    """One block: norm weights [hidden] or [head_dim], and the four stacked matrices.

    `qkv` stacks q, k, v; `gate_up` stacks gate and up. Techniques replace the matrices.
    """

    attn_norm: Tensor
    qkv: Linear
    o: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None


class Decoder(HeldByDecoder):
    """A decoder whose logits equal transformers' for the same weights within rounding.

    `layers` and `head` may be changed in place (`layer.gate_up = layer.gate_up.to_format("int8")`),
    as long as `config.intermediate_sizes` is kept in step; caches made before stay valid.
    """

    def __init__(
        self,
        config: DecoderConfig,
        embedding: Tensor,
        layers: list[Layer],
        final_norm: Tensor,
        head: Linear,
    ) -> None:
        self.config = config
        self.embedding = embedding
        self.layers = layers
        self.final_norm = final_norm
        self.head = head
        self.dtype = embedding.dtype
        self.device = str(embedding.device)
        # What config.json says; core.engine.load sets what all files of the model say together.
        self.special_ids = SpecialIds(config.bos_token_id, config.eos_token_ids)
        # Every pass, with a cache or without, attends to keys and values as this format keeps them.
        self.cache_format: KVFormat | None = None
        self.graphs = Graphs(embedding.device) if embedding.is_cuda else None
        self.rotary = Rotary(config.inverse_frequencies(), self.device)

    @classmethod
    def from_tensors(
        cls,
        config: DecoderConfig,
        tensors: Mapping[str, Tensor],
        dtype: str = "bf16",
        device: str = "cpu",
    ) -> Decoder:
        """Build from tensors in Hugging Face names, each read once; weights are rounded to `dtype`.

        Raises BadInput for an unknown dtype and for missing, unexpected or wrongly shaped tensors.
        """
        if dtype not in DENSE:
            raise BadInput(f"dtype {dtype!r} is not one of {', '.join(DENSE)}.")
        names.check(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})

        def get(name: str) -> Tensor:
            return tensors[name].detach().to(device=device, dtype=DENSE[dtype])

        embedding = get(EMBEDDING).contiguous()

        def matrix(stack: Stack) -> Linear:
            if stack.name == "head" and config.tied_embeddings:
                return Linear(embedding)
            weight = torch.cat([get(f"{name}.weight") for name, _ in stack.parts])
            bias = None
            if stack.bias:
                bias = torch.cat([get(f"{name}.bias") for name, _ in stack.parts])
            return Linear.from_dense(weight, bias, dtype)

        return cls.assemble(config, embedding, get, matrix)

    @classmethod
    def assemble(
        cls,
        config: DecoderConfig,
        embedding: Tensor,
        vector: Callable[[str], Tensor],
        matrix: Callable[[Stack], Linear],
    ) -> Decoder:
        """Of its parts: `vector` gives a norm by its Hugging Face name, `matrix` a stack."""
        by_name = {stack.name: matrix(stack) for stack in stacks(config)}
        layers = []
        for i in range(config.num_layers):
            parts: dict[str, Any] = {
                norm.name: vector(f"{lean_layer.in_layer(i, norm.module)}.weight")
                for norm in lean_layer.norms(config)
            }
            parts |= {name: by_name[f"layers.{i}.{name}"] for name in MATRICES}
            layers.append(Layer(**parts))
        return cls(config, embedding, layers, vector(FINAL_NORM.tensor), by_name["head"])

    @property
    def vocab_size(self) -> int:
        """Number of logits per position."""
        return self.config.vocab_size

    @property
    def max_positions(self) -> int:
        """Positions that the model was made for."""
        return self.config.max_positions

    def new_cache(self, batch: int, capacity: int) -> Rows:
        """An empty cache for `batch` rows of at most `capacity` tokens, in `cache_format`."""
        # It is written to in inference mode and outside of it.
        with torch.inference_mode(False):
            if self.cache_format is None:
                return KVCache(self.config, batch, capacity, self.dtype, self.device)
            return QuantizedCache(
                self.config, self.cache_format, batch, capacity, self.dtype, self.device
            )

    @torch.inference_mode()
    def forward(self, ids: Tensor, cache: Rows | None = None, last_only: bool = False) -> Tensor:
        """Logits float32 [B, T, V], or [B, 1, V] of the last position, for ids int64 [B, T].

        With a cache the ids follow the tokens in it and are appended. Raises BadInput for ids
        outside the vocabulary or a cache that is too small. Waits for ids that lie on a GPU.
        """
        check_ids(ids, self.vocab_size)
        if cache is None:
            ids = ids.to(self.device)
            return self._prefill(ids, self.new_cache(*ids.shape), last_only)
        captured = self._captured(ids, cache)
        if captured is not None:
            return captured.logits(cache, ids, last_only)
        return self._logits(ids, cache, last_only)

    @torch.inference_mode()
    def choose(self, ids: Tensor, cache: Rows, last_only: bool = False) -> Tensor:
        """See core.engine.protocol.TextEngine."""
        captured = self._captured(ids, cache)
        if captured is not None:
            if ids.is_cpu:
                check_ids(ids, self.vocab_size)
            return captured.choose(cache, ids, last_only)
        read = self.forward if ids.is_cpu else self._logits
        return read(ids, cache, last_only).argmax(-1)

    def heads(self, layer: Layer, positions: int) -> Heads:
        """The fixed part of a layer's attention, with rotary tables for at least `positions`."""
        config = self.config
        cos, sin = self.rotary.tables(positions)
        return Heads(
            heads=config.num_heads,
            kv_heads=config.num_kv_heads,
            dim=config.head_dim,
            cos=cos,
            sin=sin,
            query_norm=layer.q_norm,
            key_norm=layer.k_norm,
            eps=config.rms_norm_eps,
            window=config.sliding_window,
        )

    def export_tensors(self) -> dict[str, Tensor]:
        """All weights in Hugging Face names and the engine's dtype, quantized ones unpacked.

        A head that a technique took apart from the embedding is written out as lm_head.weight; its
        config then needs tied_embeddings False.
        """
        return export(self)

    def _prefill(self, ids: Tensor, cache: Rows, last_only: bool) -> Tensor:
        eps, start = self.config.rms_norm_eps, cache.start
        x = self.embedding[ids]
        for i, layer in enumerate(self.layers):
            heads = self.heads(layer, cache.length + ids.shape[1])
            qkv = layer.qkv(rms_norm(x, layer.attn_norm, eps))
            x = x + layer.o(cache.attend(i, qkv, start, heads))
            x = x + layer.down(swiglu(layer.gate_up(rms_norm(x, layer.mlp_norm, eps))))
        cache.length += ids.shape[1]
        x = rms_norm(x[:, -1:] if last_only else x, self.final_norm, eps)
        return self.head(x).float()

    def _logits(self, ids: Tensor, cache: Rows, last_only: bool) -> Tensor:
        batch, tokens = ids.shape
        cache.check_room(batch, tokens)
        ids = ids.to(self.device, non_blocking=True)
        if self.graphs is not None or ids.is_cuda or batch * tokens > step.MAX_ROWS:
            return self._prefill(ids, cache, last_only)
        bound: Step | None = cache.programs.get(tokens)
        if bound is None or not bound.is_current():
            bound = cache.programs[tokens] = Step(self, cache, tokens)
        return bound(ids, last_only)

    def _captured(self, ids: Tensor, cache: Rows) -> CapturedStep | None:
        """The captured step that takes these ids; None on the CPU, for a prompt and for many."""
        batch, tokens = ids.shape
        if self.graphs is None or not cache.length or not fits(batch, tokens, self.graphs):
            return None
        cache.check_room(batch, tokens)
        bound: CapturedStep | None = cache.programs.get(tokens)
        if bound is None or not bound.is_current(self):
            # The old one's memory first.
            cache.programs.pop(tokens, None)
            bound = cache.programs[tokens] = CapturedStep(self, cache, tokens, self.graphs)
        return bound
