"""Token data for measuring and training: held-out windows, the user's text, prompts, training
windows.

The bundled text is core.catalogue.zoo.corpus's; this file turns text into ids with the model's own
tokenizer, and cuts them. The user's files are read by core.dataset.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.catalogue.zoo import corpus
from core.errors import BadInput

if TYPE_CHECKING:
    import torch


# Fewer windows say too little about how windows vary.
LEAST_WINDOWS = 8
# Characters given to the tokenizer at once: a whole file would need a hundred times its size.
PIECE = 200_000


@dataclass(frozen=True, eq=False)
class Passage:
    """`ids` int64 [n], of which the last `scored` are predicted from all before them; `text_bytes`
    are the UTF-8 bytes of text that those stand for.
    """

    ids: torch.Tensor
    scored: int
    text_bytes: int


@dataclass(frozen=True, eq=False)
class Passages:
    """Passages of one text, no token scored twice, and a name that says how they were cut."""

    passages: tuple[Passage, ...]
    name: str


@dataclass(frozen=True)
class Windows:
    """`ids` int64 [n, length + 1] (input and next token), `row_bytes` of text that the `length`
    predicted tokens of each row stand for, and a name of the data.
    """

    ids: torch.Tensor
    row_bytes: tuple[int, ...]
    name: str

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The rows as passages; a row's first token is only context."""
        return tuple(
            Passage(row, len(row) - 1, size)
            for row, size in zip(self.ids, self.row_bytes, strict=True)
        )


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


def text_passages(
    tokenizer: Any,
    start_id: int | None,
    texts: Sequence[str],
    name: str,
    context: int,
    budget: int,
) -> Passages:
    """Passages of the user's texts by a sliding window of `context` tokens, half of it a stride.

    Each scored token has at least half a window of tokens before it, fewer only at the beginning
    (the strided evaluation of transformers' perplexity guide). All tokens are scored once when they
    are at most `budget`; else strides evenly spread over the text are. A text of few tokens is cut
    into shorter strides, so that there are windows to compare. BadInput for fewer than two tokens.
    """
    import torch

    ids, ends = encode_with_ends(tokenizer, texts, start_id)
    starts = len(texts) if start_id is not None else 0
    if len(ids) - starts < 2:
        raise BadInput(
            f"{name} has {len(ids) - starts} tokens for this model: at least 2 are needed"
        )
    total, stride = len(ids) - 1, max(1, context // 2)
    if total <= budget:
        count = min(total, max(-(-total // stride), LEAST_WINDOWS))
        edges = np.linspace(1, len(ids), count + 1).astype(int)
        cuts = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        stride = max(end - begin for begin, end in cuts)
        scored = f"all {total:,} tokens scored once"
    else:
        count = max(1, budget // stride)
        firsts = np.linspace(1, len(ids) - stride, count).astype(int)
        cuts = [(first, first + stride) for first in firsts.tolist()]
        scored = f"{count * stride:,} of {total:,} tokens scored once, evenly spread"
    found = []
    for begin, end in cuts:
        passage = torch.tensor(ids[max(0, end - 1 - context) : end], dtype=torch.int64)
        found.append(Passage(passage, end - begin, int(ends[end - 1] - ends[begin - 1])))
    behind = context - stride
    how = (
        f"{name}; context {context}, stride {stride}: {scored} in {count} windows, each token"
        f" behind at least {behind} others or the beginning"
    )
    return Passages(tuple(found), how)


def encode_with_ends(
    tokenizer: Any, texts: Sequence[str], start_id: int | None
) -> tuple[array[int], np.ndarray]:
    """Ids of all texts, each behind `start_id` when there is one, and where each token's text ends,
    int64, in UTF-8 bytes from the first text's beginning.

    A long text is tokenized in pieces that end with a line where there is one.
    """
    ids = array("q")
    ends: list[np.ndarray] = []
    before = 0
    for text in texts:
        if start_id is not None:
            ids.append(start_id)
            ends.append(np.array([before]))
        for piece in pieces(text):
            encoding = tokenizer.encode(piece, add_special_tokens=False)
            if not encoding.ids:
                continue
            ids.extend(encoding.ids)
            points = np.frombuffer(piece.encode("utf-32-le"), dtype=np.uint32)
            sizes = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
            until = np.concatenate([[0], np.cumsum(sizes)])
            # A tokenizer may trim spaces off its offsets; what ends before its neighbour does not.
            own = until[np.maximum.accumulate([end for _, end in encoding.offsets])]
            own[-1] = until[-1]
            ends.append(before + own)
            before += int(until[-1])
    return ids, np.concatenate(ends) if ends else np.zeros(0, dtype=np.int64)


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """`text` in parts of at most `size` characters that end with a line where they can."""
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            line = text.rfind("\n", start, end)
            end = line + 1 if line > start else end
        yield text[start:end]
        start = end


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
