"""Owns the check of token ids at the door of an engine. On a GPU an id that no embedding has a row
for would end the process; here it is a sentence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import BadInput


def check_ids(ids: Tensor, vocabulary: int) -> None:
    """Raise BadInput unless these are ids int64 [B, T] of the vocabulary; waits for a GPU's."""
    if ids.ndim != 2 or ids.shape[1] < 1 or ids.dtype != torch.int64:
        raise BadInput(f"ids must be int64 [B, T] with T >= 1, not {list(ids.shape)}.")
    if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
        raise BadInput(f"a token id is outside the vocabulary of {vocabulary}.")
