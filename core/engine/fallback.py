"""Owns running other causal language models through transformers, behind the engine's interface.

Techniques that change matrices do not know these models; they can be measured, batched and drafted
for. The folder was checked by core.loading.preflight; code from it is never run.
"""

from __future__ import annotations

from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.engine.linear import DENSE
from core.engine.special_ids import SpecialIds
from core.errors import BadInput

# What `forward` calls its cache: `cache` from transformers 5.24 on, where the older name is
# deprecated.
CACHE_NAMES = ("cache", "past_key_values")


@lru_cache(maxsize=64)
def cache_name(kind: type) -> str:
    """The argument in which this class of causal models takes its cache, one of CACHE_NAMES.

    BadInput where its `forward` names neither: such a cache would be swallowed without being used.
    """
    known = signature(kind.forward).parameters  # type: ignore[attr-defined]
    for name in CACHE_NAMES:
        if name in known:
            return name
    raise BadInput(
        f"{kind.__name__}: the installed transformers takes no cache named"
        f" {' or '.join(CACHE_NAMES)}; install a version that .ci/constraints.txt names."
    )


class TransformersCache:
    """A transformers DynamicCache that counts its tokens."""

    def __init__(self, inner: Any, batch: int, capacity: int) -> None:
        self.inner = inner
        self.batch = batch
        self.capacity = capacity
        self.length = 0

    def truncate(self, length: int) -> None:
        """See core.engine.interface.Cache; BadInput for attention whose cache cannot be cut."""
        if not 0 <= length <= self.length:
            raise BadInput(f"cannot truncate a cache of {self.length} tokens to {length}.")
        if length == self.length:
            return
        try:
            self.inner.crop(length - self.length)
        except (ValueError, NotImplementedError, RuntimeError) as error:
            raise BadInput(f"this model's cache cannot be truncated: {error}.") from None
        self.length = length

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values now held."""
        total = 0
        for layer in self.inner.layers:
            for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
                total += tensor.nbytes if isinstance(tensor, Tensor) else 0
        return total


class TransformersEngine:
    """A TextEngine over AutoModelForCausalLM."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.config = model.config
        self.device = str(model.device)
        # core.loading sets what the model's files say.
        self.special_ids = SpecialIds()

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

    @property
    def vocab_size(self) -> int:
        """Number of logits per position."""
        return int(self.config.get_text_config().vocab_size)

    @property
    def max_positions(self) -> int:
        """Positions that the model was made for; unbounded architectures give a large number."""
        return int(getattr(self.config.get_text_config(), "max_position_embeddings", 1 << 20))

    def new_cache(self, batch: int, capacity: int) -> TransformersCache:
        """An empty cache; it grows as it is filled, up to `capacity`."""
        from transformers import DynamicCache

        return TransformersCache(DynamicCache(config=self.config), batch, capacity)

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, cache: TransformersCache | None = None, last_only: bool = False
    ) -> Tensor:
        """See core.engine.interface.TextEngine."""
        if ids.ndim != 2 or ids.shape[1] < 1 or ids.dtype != torch.int64:
            raise BadInput(f"ids must be int64 [B, T] with T >= 1, not {list(ids.shape)}.")
        if int(ids.min()) < 0 or int(ids.max()) >= self.vocab_size:
            raise BadInput(f"a token id is outside the vocabulary of {self.vocab_size}.")
        tokens = ids.shape[1]
        if cache is not None and (
            ids.shape[0] != cache.batch or cache.length + tokens > cache.capacity
        ):
            raise BadInput(
                f"the cache was made for {cache.batch} rows of {cache.capacity} tokens and holds "
                f"{cache.length}; {list(ids.shape)} more do not fit."
            )
        past = {} if cache is None else {cache_name(type(self.model)): cache.inner}
        out = self.model(
            input_ids=ids.to(self.device),
            use_cache=cache is not None,
            logits_to_keep=1 if last_only else 0,
            **past,
        )
        if cache is not None:
            cache.length += tokens
        logits: Tensor = out.logits.float()
        return logits

    def weight_bytes(self) -> int:
        """Bytes of all parameters and buffers, shared memory counted once."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return sum({t.data_ptr(): t.nbytes for t in tensors}.values())
