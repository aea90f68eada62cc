"""Owns a decode step on a GPU: everything from the ids to the logits, or to the likeliest tokens,
as one run over buffers that stay where they are, for core.engine.passes.graph to capture.

Ids and positions lie on the device, and nothing is read back here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.engine.passes.graph import Graphs, Run
from core.engine.passes.step import bind, same, weights
from kernels import attention

if TYPE_CHECKING:
    from core.engine.cache.contiguous import Rows
    from core.engine.decoder import Decoder

# What one call of an attention kernel over codes appends at most; a prompt is longer.
MAX_TOKENS = 16
# Buffers between the kernels grow with the rows.
MAX_ROWS = 1024


def fits(batch: int, tokens: int, graphs: Graphs) -> bool:
    """Whether so many tokens behind others run as a captured step; says so where a step has too
    many rows. More tokens are part of a prompt.
    """
    if tokens <= MAX_TOKENS and batch * tokens > MAX_ROWS:
        graphs.refused(f"a step of more than {MAX_ROWS} rows is not captured")
    return tokens <= MAX_TOKENS and batch * tokens <= MAX_ROWS


class CapturedStep:
    """One forward pass of `tokens` new tokens for the rows of one cache, which keeps it.

    It refers neither to the cache nor to the decoder, only to their tensors: its memory goes with
    the cache.
    """

    def __init__(self, decoder: Decoder, cache: Rows, tokens: int, graphs: Graphs) -> None:
        self.batch, self.tokens = cache.batch, tokens
        self._bound = _bound(decoder)
        self._embedding, self._head = decoder.embedding, decoder.head
        device, rows = decoder.device, cache.batch * tokens
        ints = functools.partial(torch.zeros, dtype=torch.int64)
        self._capture: Graphs | None = graphs
        if not attention.reads_start_on_device(device, cache.kernel_format):
            graphs.refused(f"attention over {cache.kernel_format} asks the host where rows begin")
            self._capture = None
        self._start = ints(cache.batch, device=device if self._capture else "cpu")
        # The length of the cache, and its rows' distances, that the positions were written for.
        self._written: tuple[int, Tensor | None] = (-1, None)
        self._ids = ints(rows, device=device)
        # One token for each row: the chosen one is the next to be read, and lies there already.
        self._next = self._ids.view(cache.batch, 1) if tokens == 1 else None

        # The layers run one after another: what has one width can lie in one place.
        @functools.cache
        def zeros(shape: tuple[int, ...]) -> Tensor:
            return torch.zeros(shape, dtype=decoder.dtype, device=device)

        self._x = torch.zeros(
            (rows, decoder.config.hidden_size), dtype=decoder.dtype, device=device
        )
        self._h = torch.zeros_like(self._x)
        self._calls = bind(decoder, cache, tokens, self._start, self._x, self._h, zeros)
        self._runs: dict[tuple[bool, bool], tuple[Run, Tensor]] = {}

    def is_current(self, decoder: Decoder) -> bool:
        """False after a technique replaced a weight."""
        return same(_bound(decoder), self._bound)

    def logits(self, cache: Rows, ids: Tensor, last_only: bool) -> Tensor:
        """See Decoder.forward; the ids are valid and fit the cache."""
        return self._run(cache, ids, (False, last_only)).clone()

    def choose(self, cache: Rows, ids: Tensor, last_only: bool) -> Tensor:
        """See Decoder.choose; what this returns is written again by the next call."""
        return self._run(cache, ids, (True, last_only))

    def _run(self, cache: Rows, ids: Tensor, kind: tuple[bool, bool]) -> Tensor:
        if kind not in self._runs:
            self._runs[kind] = self._made(*kind)
        run, out = self._runs[kind]
        length, behind = self._written
        if cache.length != length or cache.behind is not behind:
            cache.write_starts(self._start)
        if ids is not self._next:
            self._ids.copy_(ids.reshape(-1), non_blocking=True)
        # Unknown where the run breaks off.
        self._written = -1, None
        run()
        cache.length += self.tokens
        # The run has moved the positions on by itself.
        self._written = cache.length, cache.behind
        return out

    def _made(self, choose: bool, last_only: bool) -> tuple[Run, Tensor]:
        """The run, and what it writes: logits float32 or ids int64 of the positions asked for."""
        shape = (self.batch, 1 if last_only else self.tokens)
        device = self._ids.device
        if not choose:
            out = torch.zeros((*shape, self._head.out_features), device=device)
        elif self._next is not None:
            out = self._next
        else:
            out = torch.zeros(shape, dtype=torch.int64, device=device)

        # The step keeps its runs: they refer to its tensors alone, so that it ends with its cache.
        embedding, head, calls, tokens = self._embedding, self._head, self._calls, self.tokens
        start, ids, x = self._start, self._ids, self._x
        h = self._h.view(self.batch, tokens, -1)
        read = h[:, -1:] if last_only else h

        def run() -> None:
            torch.index_select(embedding, 0, ids, out=x)
            for call in calls:
                call()
            start.add_(tokens)
            if choose:
                torch.argmax(head(read), -1, out=out)
            else:
                out.copy_(head(read))

        return (run if self._capture is None else self._capture(run)), out


def _bound(decoder: Decoder) -> list[object]:
    return [decoder.embedding, decoder.head, *weights(decoder)]
