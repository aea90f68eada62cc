"""Token data for measuring and training: held-out windows, prompts, training windows.

The text is core.catalogue.zoo.corpus's; this file turns it into ids with the model's own tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.catalogue.zoo import corpus
from core.errors import BadInput

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Windows:
    """`ids` int64 [n, length + 1] (input and next token), `row_bytes` of text that the `length`
    predicted tokens of each row stand for, and a name of the data.
    """

    ids: torch.Tensor
    row_bytes: tuple[int, ...]
    name: str


def encode(
    tokenizer: Any, texts: tuple[str, ...], start_id: int | None, most: int
) -> tuple[list[int], int]:
    """Ids of the texts, each behind `start_id` when there is one, until `most` ids; and the bytes
    consumed.
    """
    ids: list[int] = []
    used = 0
    for text in texts:
        if start_id is not None:
            ids.append(start_id)
        # Many tokenizers would add a start of their own, which would then stand there twice.
        ids.extend(tokenizer.encode(text, add_special_tokens=False).ids)
        used += len(text.encode())
        if len(ids) >= most:
            break
    return ids, used


def predicted_bytes(tokenizer: Any, row: list[int]) -> int:
    """UTF-8 bytes that all tokens of `row` but the first add to its text; start tokens add none.

    A character cut by the window's edge counts as the three bytes of its replacement.
    """
    whole = tokenizer.decode(row, skip_special_tokens=True)
    given = tokenizer.decode(row[:1], skip_special_tokens=True)
    return len(whole.encode()) - len(given.encode())


def held_out_windows(tokenizer: Any, start_id: int | None, count: int, length: int) -> Windows:
    """`count` windows of `length` tokens, evenly spread over the held-out modules."""
    import torch

    texts = corpus.held_out_set()
    ids, _ = encode(tokenizer, texts.texts, start_id, 10**9)
    if len(ids) < count * (length + 1):
        raise BadInput(
            f"the held-out text gives only {len(ids)} tokens with this model's tokenizer;"
            f" {count * (length + 1)} are needed"
        )
    starts = np.linspace(0, len(ids) - length - 1, count).astype(int)
    rows = [ids[start : start + length + 1] for start in starts]
    name = (
        f"held-out modules of the Python library, sha256 {texts.digest[:12]},"
        f" {count} x {length} tokens"
    )
    row_bytes = tuple(predicted_bytes(tokenizer, row) for row in rows)
    return Windows(torch.tensor(rows, dtype=torch.int64), row_bytes, name)


def prompts(
    tokenizer: Any, start_id: int | None, count: int, length: int, vocabulary: int, seed: int
) -> torch.Tensor:
    """int64 [count, length]: the beginnings of held-out passages; random ids where there is no
    tokenizer.
    """
    import torch

    if tokenizer is None:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, vocabulary, (count, length), generator=generator)
    ids, _ = encode(tokenizer, corpus.held_out_set().texts, start_id, (count + 1) * length * 8)
    starts = np.linspace(0, len(ids) - length - 1, count).astype(int)
    return torch.tensor([ids[start : start + length] for start in starts], dtype=torch.int64)


def training_stream(tokenizer: Any, start_id: int | None, tokens: int) -> torch.Tensor:
    """int64 [>= tokens]: ids of training modules, never of held-out ones."""
    import torch

    texts = corpus.training_set(limit_bytes=max(400_000, tokens * 8))
    ids, _ = encode(tokenizer, texts.texts, start_id, tokens)
    return torch.tensor(ids, dtype=torch.int64)


def digits(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [n, 1, 8, 8] in [0, 1] and labels int64 [n] of `train` or `held_out`."""
    from safetensors.torch import load_file

    from core.catalogue.models import ZOO

    data = load_file(ZOO / "digits" / "digits.safetensors")
    chosen = data[part].long()
    return data["images"][chosen].float()[:, None] / 16, data["labels"][chosen].long()
