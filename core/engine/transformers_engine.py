"""Owns running other causal language models through transformers, behind the engine's interface.

Techniques that change matrices do not know these models; they can be measured, batched and drafted
for. The folder was checked by core.files.folder; code from it is never run.
"""

from __future__ import annotations

from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.engine import positions
from core.engine.cache.transformers_cache import TransformersCache
from core.engine.held import HeldByModule
from core.engine.linear import DENSE
from core.engine.passes.token_ids import check_ids
from core.errors import BadInput
from core.files.special_ids import SpecialIds

# What `forward` calls its cache: `cache` from transformers 5.24 on, where the older name is
# deprecated.
CACHE_NAMES = ("cache", "past_key_values")


def cache_name(kind: Any) -> str:
    """The argument in which this class of causal models takes its cache, one of CACHE_NAMES.

    BadInput where its `forward` names neither: such a cache would be swallowed without being used.
    """
    known = signature(kind.forward).parameters
    for name in CACHE_NAMES:
        if name in known:
            return name
    raise BadInput(
        f"{kind.__name__}: the installed transformers takes no cache named"
        f" {' or '.join(CACHE_NAMES)}; install a version that .ci/constraints.txt names."
    )


class TransformersEngine(HeldByModule):
    """A TextEngine over AutoModelForCausalLM."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.config = model.config
        self.device = str(model.device)
        # core.engine.load sets what the model's files say.
        self.special_ids = SpecialIds()
        text = self.config.get_text_config()
        self.vocab_size = int(text.vocab_size)
        self.max_positions = positions.farthest(text)
        self._original = positions.original_positions(text)
        self._dynamic = positions.dynamic_parts(self.model)

    @classmethod
    def from_folder(
        cls, folder: Path | str, dtype: str = "bf16", device: str = "cpu", file: str = ""
    ) -> TransformersEngine:
        """Load a local folder; BadInput when tensors are missing, left over or do not fit.

        `file` is what the weights are called in sentences, the folder's name unless given.
        """
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        name = file or Path(folder).name
        logging.disable_progress_bar()
        model: Any
        report: Any
        try:
            model, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
                str(folder),
                dtype=DENSE[dtype],
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused by name below
            )
        except Exception as error:  # Each architecture fails in its own way on a bad config.
            reason = " ".join(str(error).split())[:200]
            raise BadInput(
                f"{name}: transformers cannot load this folder ({type(error).__name__}: {reason})."
            ) from None
        for kind, what in (
            ("missing_keys", "is missing"),
            ("unexpected_keys", "is not part of the model in config.json"),
            ("mismatched_keys", "has another shape than config.json asks for"),
        ):
            if report.get(kind):
                keys = [key if isinstance(key, str) else key[0] for key in report[kind]]
                first = min(map(str, keys))
                raise BadInput(f"{name}: the tensor {first[:200]} {what}.")
        return cls(model.to(device))

    @cached_property
    def cache_name(self) -> str:
        """See cache_name(), of the model's class."""
        return cache_name(type(self.model))

    def new_cache(self, batch: int, capacity: int) -> TransformersCache:
        """An empty cache; it grows as it is filled, up to `capacity`."""
        return TransformersCache(self.config, batch, capacity, self.device)

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, cache: TransformersCache | None = None, last_only: bool = False
    ) -> Tensor:
        """See core.engine.protocol.TextEngine."""
        check_ids(ids, self.vocab_size)
        return self._forward(ids.to(self.device), cache, last_only)

    @torch.inference_mode()
    def choose(self, ids: Tensor, cache: TransformersCache, last_only: bool = False) -> Tensor:
        """See core.engine.protocol.TextEngine."""
        if ids.is_cpu:
            return self.forward(ids, cache, last_only).argmax(-1)
        return self._forward(ids, cache, last_only).argmax(-1)

    def _forward(self, ids: Tensor, cache: TransformersCache | None, last_only: bool) -> Tensor:
        if cache is None:
            return self._pass(ids, None, 1 if last_only else 0)
        cache.check_room(*ids.shape)
        if cache.parts:
            rows = zip(ids.split(1), cache.parts, strict=True)
            return torch.cat([self._forward(row, part, last_only) for row, part in rows])
        logits = [
            self._extend(part, far, cache, last_only) for part, far in self._parts(ids, cache)
        ]
        return logits[-1] if last_only else torch.cat(logits, dim=1)

    def _parts(self, ids: Tensor, cache: TransformersCache) -> list[tuple[Tensor, bool]]:
        """The ids within the original positions and those beyond, as single steps would meet them;
        a text that begins with these ids is one of them or the other as a whole.
        """
        bound, start = self._original, cache.length
        if bound is None or start + ids.shape[1] <= bound:
            return [(ids, False)]
        near = max(0, bound - start) if start else 0
        parts = (ids[:, :near], False), (ids[:, near:], True)
        return [part for part in parts if part[0].shape[1]]

    def _extend(self, ids: Tensor, far: bool, cache: TransformersCache, last_only: bool) -> Tensor:
        if cache.far != far:
            cache.clear()
            cache.far = far
        tokens = torch.cat([cache.ids, ids], dim=1)
        unseen, new = tokens[:, cache.held :], ids.shape[1]
        logits = self._pass(unseen, cache, 1 if last_only else new)
        cache.ids, cache.held = tokens, tokens.shape[1]
        return logits

    def _pass(self, ids: Tensor, cache: TransformersCache | None, last: int) -> Tensor:
        """Logits float32 of the `last` positions, 0 for all."""
        positions.forget_longest(self._dynamic)
        past = {} if cache is None else {self.cache_name: cache.inner}
        out = self.model(
            input_ids=ids,
            use_cache=cache is not None,
            logits_to_keep=last,
            **past,
        )
        logits: Tensor = out.logits.float()
        return logits

    @property
    def module(self) -> nn.Module:
        """See core.engine.protocol.Engine."""
        module: nn.Module = self.model
        return module

    def looked_up_bytes(self) -> int:
        """Tables of tokens, and of positions, that the head does not read too."""
        outer = self.model.get_output_embeddings()
        # A head that a technique replaced keeps its codes in buffers.
        read = () if outer is None else (*outer.parameters(), *outer.buffers())
        shared = {tensor.data_ptr() for tensor in read}
        tables = [part.weight for part in self.model.modules() if isinstance(part, nn.Embedding)]
        sizes = {
            table.data_ptr(): table.nbytes for table in tables if table.data_ptr() not in shared
        }
        return sum(sizes.values())
