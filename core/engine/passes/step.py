"""Owns the bound form of a decode step: buffers allocated once, one argument-free call per kernel.

It computes what `Decoder._prefill` computes, for few tokens; Python's share of a step is one loop.
Capturing a step on a GPU is core.engine.passes.captured_step's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels import rms_norm, swiglu
from kernels.program import join

if TYPE_CHECKING:
    from core.engine.cache.contiguous import Rows
    from core.engine.decoder import Decoder

# From here on torch's blocked products are faster than streaming the weights once per row tile.
MAX_ROWS = 16
Zeros = Callable[[tuple[int, ...]], Tensor]


class Step:
    """One forward pass of `tokens` new tokens for the rows of one cache."""

    def __init__(self, decoder: Decoder, cache: Rows, tokens: int) -> None:
        self.decoder = decoder
        # The cache keeps its steps: with a strong reference back it would outlive its request until
        # the garbage collector comes by, and several caches would lie in memory at once.
        self.cache: Rows = weakref.proxy(cache)
        self.tokens = tokens
        self._bound = weights(decoder)
        self._start = torch.zeros(cache.batch, dtype=torch.int64)
        zeros = partial(torch.zeros, dtype=decoder.dtype, device=decoder.device)
        self._x = zeros((cache.batch * tokens, decoder.config.hidden_size))
        self._h = torch.zeros_like(self._x)
        self._calls = bind(decoder, cache, tokens, self._start, self._x, self._h, zeros)

    def is_current(self) -> bool:
        """False after a technique replaced a weight."""
        return same(weights(self.decoder), self._bound)

    def __call__(self, ids: Tensor, last_only: bool) -> Tensor:
        """See Decoder.forward; the ids are valid and fit the cache."""
        cache, decoder = self.cache, self.decoder
        cache.write_starts(self._start)
        torch.index_select(decoder.embedding, 0, ids.reshape(-1), out=self._x)
        for call in self._calls:
            call()
        cache.length += self.tokens
        h = self._h.view(cache.batch, self.tokens, -1)
        return decoder.head(h[:, -1:] if last_only else h).float()


def weights(decoder: Decoder) -> list[object]:
    """What a step is bound to: every norm and matrix of the layers, and the last norm."""
    bound: list[object] = [decoder.final_norm]
    for layer in decoder.layers:
        bound += vars(layer).values()
    return bound


def same(now: list[object], then: list[object]) -> bool:
    """Whether these are the very same objects."""
    return len(now) == len(then) and all(map(_same, now, then))


def bind(
    decoder: Decoder, cache: Rows, tokens: int, start: Tensor, x: Tensor, h: Tensor, zeros: Zeros
) -> list[Callable[[], object]]:
    """The calls from the embedded tokens in x to the normed states in h, both [rows, hidden].

    `start` int64 [batch] is read at every call; `zeros` makes the buffers between the kernels.
    """
    config = decoder.config
    rows, eps = cache.batch * tokens, config.rms_norm_eps
    qkv = zeros((rows, config.query_size + 2 * config.kv_size))
    mixed = zeros((rows, config.query_size))
    shape = (cache.batch, tokens, -1)
    steps: list[Callable[[], object]] = []
    for i, layer in enumerate(decoder.layers):
        gate_up = zeros((rows, layer.gate_up.out_features))
        gated = zeros((rows, layer.down.in_features))
        heads = decoder.heads(layer, cache.capacity)
        steps += [
            rms_norm.prepare(x, layer.attn_norm, eps, h),
            layer.qkv.prepare(h, qkv),
            cache.bind(i, qkv.view(shape), start, heads, mixed.view(shape)),
            layer.o.prepare(mixed, x, residual=x),
            rms_norm.prepare(x, layer.mlp_norm, eps, h),
            layer.gate_up.prepare(h, gate_up),
            swiglu.prepare(gate_up, gated),
            layer.down.prepare(gated, x, residual=x),
        ]
    steps.append(rms_norm.prepare(x, decoder.final_norm, eps, h))
    return join(steps)


def _same(a: object, b: object) -> bool:
    return a is b
