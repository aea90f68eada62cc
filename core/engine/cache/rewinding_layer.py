"""Owns a sliding window's keys and values that can take back the last tokens, past the window too.

transformers' own layer keeps what the window shows and no more, unless it is cut after every pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from core.model import WINDOW_MARGIN

# More than one step of speculation takes back.
MARGIN = WINDOW_MARGIN


class RewindingLayer(DynamicSlidingWindowLayer):
    """A layer of a window of `sliding_window` tokens, keys and values [B, heads, kept, dim].

    What attention is given is what transformers' layer gives it: the window - 1 tokens before the
    new ones, and these. Kept are MARGIN tokens more.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the new tokens; the keys and values that they may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[-2]
        self.cumulative_length += new
        keys = torch.cat([self.keys, key_states], dim=-2)  # type: ignore[list-item]
        values = torch.cat([self.values, value_states], dim=-2)  # type: ignore[list-item]
        kept, shown = self.sliding_window - 1 + MARGIN, self.sliding_window - 1 + new
        self.keys, self.values = keys[:, :, -kept:], values[:, :, -kept:]
        return keys[:, :, -shown:], values[:, :, -shown:]

    def can_forget(self, tokens: int) -> bool:
        """Whether the window before the last `tokens` tokens is still whole."""
        if not self.is_initialized:
            return True
        kept = self.keys.shape[-2] - tokens  # type: ignore[union-attr]
        return kept >= min(self.cumulative_length - tokens, self.sliding_window - 1)

    def forget(self, tokens: int) -> None:
        """Take the last `tokens` >= 1 tokens back; `can_forget` said that it is possible."""
        if self.is_initialized:
            self.keys = self.keys[:, :, :-tokens]  # type: ignore[index]
            self.values = self.values[:, :, :-tokens]  # type: ignore[index]
            self.cumulative_length -= tokens


def with_rewinding(cache: Any) -> Any:
    """A transformers DynamicCache whose sliding windows can take tokens back."""
    for at, layer in enumerate(cache.layers):
        if type(layer) is DynamicSlidingWindowLayer:
            cache.layers[at] = RewindingLayer(layer.sliding_window)
    return cache


def forget(cache: Any, tokens: int) -> bool:
    """Take the last `tokens` >= 1 tokens back; False, and nothing done, where a layer cannot."""
    for layer in cache.layers:
        if isinstance(layer, RewindingLayer):
            if not layer.can_forget(tokens):
                return False
        elif type(layer) is not DynamicLayer:
            return False
    for layer in cache.layers:
        if isinstance(layer, RewindingLayer):
            layer.forget(tokens)
        else:
            layer.crop(-tokens)
    return True
