"""Token data for measuring and training: held-out windows, the user's text, prompts, training
windows.

The bundled text is core.catalogue.zoo.corpus's; this file turns text into ids with the model's own
tokenizer, and cuts them. The user's files are read by core.data.files.

The convention of start tokens. Whatever a model reads here, a window, a prompt or a sequence to
learn from, begins with the tokens that the tokenizer itself puts before a text (`prefix`, from
core.files.special_ids): models rest on them. Where it puts none, there is none. Documents that
follow each other are parted by them too. They are context: none is ever scored, in no count of
tokens or bytes. llama.cpp's perplexity begins each chunk so and scores its second half only: in our
sliding windows too each token is scored behind half a window or more. lm-eval's rolling
log-likelihood agrees on the beginning of a text; it puts its prefix token (bos, else eos) before
models whose tokenizer adds none as well, and nothing before later windows. Held-out windows score
all of their tokens, as its disjoint windows do.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.catalogue.models import ZOO
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
    """`ids` int64 [n], of which the last `scored` are predicted from all before them, but for those
    in `prefix`; `text_bytes` are the UTF-8 bytes of text that they stand for.
    """

    ids: torch.Tensor
    scored: int
    text_bytes: int
    prefix: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Tokens that are predicted."""
        return self.scored - int(self.starts().sum())

    def starts(self) -> torch.Tensor:
        """bool [scored]: which of the last tokens are only context, since they start a text."""
        import torch

        targets = self.ids[len(self.ids) - self.scored :]
        return torch.isin(targets, torch.tensor(self.prefix, dtype=torch.int64))


@dataclass(frozen=True, eq=False)
class Passages:
    """Passages of one text, no token scored twice, and a name that says how they were cut."""

    passages: tuple[Passage, ...]
    name: str


@dataclass(frozen=True)
class Windows:
    """`ids` int64 [n, length + 1] (input and next token), `row_bytes` of text that the predicted
    tokens of each row stand for, a name of the data, and what every row begins with.
    """

    ids: torch.Tensor
    row_bytes: tuple[int, ...]
    name: str
    prefix: tuple[int, ...] = ()

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The rows as passages; what they begin with is only context."""
        lead = max(1, len(self.prefix))
        return tuple(
            Passage(row, len(row) - lead, size, self.prefix)
            for row, size in zip(self.ids, self.row_bytes, strict=True)
        )


def opened(ids: Sequence[int], prefix: Sequence[int]) -> list[int]:
    """A text's ids behind what a text begins with, once: some texts bring it themselves."""
    own = list(ids)
    return own if own[: len(prefix)] == list(prefix) else [*prefix, *own]


def fitted(ids: list[int], room: int, prefix: Sequence[int]) -> list[int]:
    """At most `room` ids: what is too long loses what stands behind its prefix."""
    if len(ids) <= room:
        return ids
    lead = list(prefix) if ids[: len(prefix)] == list(prefix) else []
    return [*lead, *ids[len(ids) - room + len(lead) :]]


def begun(ids: Sequence[int], begin: int, end: int, prefix: Sequence[int]) -> list[int]:
    """The tokens from `begin` to `end`, the first of them replaced by what a text begins with, as
    llama.cpp replaces the first of a chunk.
    """
    return [*prefix, *ids[begin + len(prefix) : end]]


def how_begun(prefix: Sequence[int]) -> str:
    """How windows begin, for a measurement's method."""
    return "each behind a start token" if prefix else "no start tokens, the tokenizer adds none"


def encode(
    tokenizer: Any, texts: Sequence[str], prefix: Sequence[int], most: int
) -> tuple[list[int], int]:
    """Ids of the texts, each behind `prefix`, until `most` ids; and the bytes consumed."""
    ids: list[int] = []
    used = 0
    for text in texts:
        # Not by the tokenizer: it may put something behind the text too.
        ids.extend(opened(tokenizer.encode(text, add_special_tokens=False).ids, prefix))
        used += len(text.encode())
        if len(ids) >= most:
            break
    return ids, used


def held_out_windows(tokenizer: Any, prefix: tuple[int, ...], count: int, length: int) -> Windows:
    """`count` windows of `length` tokens, evenly spread over the held-out modules."""
    import torch

    texts = corpus.held_out_set()
    ids, ends = encode_with_ends(tokenizer, texts.texts, prefix)
    if len(ids) < count * (length + 1):
        raise BadInput(
            f"the held-out text gives only {len(ids)} tokens with this model's tokenizer;"
            f" {count * (length + 1)} are needed"
        )
    lead = max(1, len(prefix))
    starts = np.linspace(0, len(ids) - length - 1, count).astype(int).tolist()
    rows = [begun(ids, start, start + length + 1, prefix) for start in starts]
    sizes = tuple(int(ends[start + length] - ends[start + lead - 1]) for start in starts)
    name = (
        f"held-out modules of the Python library, sha256 {texts.digest[:12]},"
        f" {count} x {length} tokens, {how_begun(prefix)}"
    )
    return Windows(torch.tensor(rows, dtype=torch.int64), sizes, name, prefix)


def text_passages(
    tokenizer: Any,
    prefix: tuple[int, ...],
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

    ids, ends = encode_with_ends(tokenizer, texts, prefix)
    own = int((~np.isin(ids, prefix)).sum())
    if own < 2:
        raise BadInput(f"{name} has {own} tokens for this model: at least 2 are needed")
    total, stride = len(ids) - 1, max(1, context // 2)
    if total <= budget:
        count = min(total, max(-(-total // stride), LEAST_WINDOWS))
        edges = np.linspace(1, len(ids), count + 1).astype(int)
        cuts = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        stride = max(end - begin for begin, end in cuts)
    else:
        count = max(1, budget // stride)
        firsts = np.linspace(1, len(ids) - stride, count).astype(int)
        cuts = [(first, first + stride) for first in firsts.tolist()]
    passages = []
    for begin, end in cuts:
        row = begun(ids, max(0, end - 1 - context), end, prefix)
        size = int(ends[end - 1] - ends[begin - 1])
        passage = Passage(torch.tensor(row, dtype=torch.int64), end - begin, size, prefix)
        if passage.count:
            passages.append(passage)
    scored = sum(passage.count for passage in passages)
    most = own if prefix else total
    what = f"all {scored:,}" if total <= budget else f"{scored:,} of {most:,}"
    spread = "" if total <= budget else ", evenly spread"
    how = (
        f"{name}; context {context}, stride {stride}: {what} tokens scored once{spread} in"
        f" {len(passages)} windows, {how_begun(prefix)}, each token behind at least"
        f" {context - stride} others or the beginning"
    )
    return Passages(tuple(passages), how)


def encode_with_ends(
    tokenizer: Any, texts: Sequence[str], prefix: Sequence[int]
) -> tuple[array[int], np.ndarray]:
    """Ids of all texts, each behind `prefix`, and where each token's text ends, int64, in UTF-8
    bytes from the first text's beginning.

    A long text is tokenized in pieces that end with a line where there is one.
    """
    ids = array("q")
    ends: list[np.ndarray] = []
    before = 0
    for text in texts:
        first = len(ids)
        for piece in pieces(text):
            encoding = tokenizer.encode(piece, add_special_tokens=False)
            if len(ids) == first and encoding.ids[: len(prefix)] != list(prefix):
                ids.extend(prefix)
                ends.append(np.full(len(prefix), before))
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
    return ids, np.concatenate(ends).astype(np.int64) if ends else np.zeros(0, dtype=np.int64)


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
    tokenizer: Any, prefix: Sequence[int], count: int, length: int, vocabulary: int, seed: int
) -> torch.Tensor:
    """int64 [count, length]: held-out passages behind what a text begins with; random ids where
    there is no tokenizer.
    """
    import torch

    if tokenizer is None:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, vocabulary, (count, length), generator=generator)
    ids, _ = encode(tokenizer, corpus.held_out_set().texts, prefix, (count + 1) * length * 8)
    starts = np.linspace(0, len(ids) - length - 1, count).astype(int).tolist()
    rows = [begun(ids, start, start + length, prefix) for start in starts]
    return torch.tensor(rows, dtype=torch.int64)


def training_stream(tokenizer: Any, prefix: Sequence[int], tokens: int) -> list[int]:
    """At least `tokens` ids of training modules, never of held-out ones."""
    texts = corpus.training_set(limit_bytes=max(400_000, tokens * 8))
    return encode(tokenizer, texts.texts, prefix, tokens)[0]


def drawn(
    stream: Sequence[int], prefix: Sequence[int], count: int, length: int, random: torch.Generator
) -> torch.Tensor:
    """int64 [count, length]: windows of a stream from places drawn by `random`, which overlap where
    the stream is short. It must hold `length` tokens.
    """
    import torch

    starts = torch.randint(0, len(stream) - length + 1, (count,), generator=random).tolist()
    rows = [begun(stream, start, start + length, prefix) for start in starts]
    return torch.tensor(rows, dtype=torch.int64)


def digits(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [n, 1, 8, 8] in [0, 1] and labels int64 [n] of `train` or `held_out`."""
    from safetensors.torch import load_file

    data = load_file(ZOO / "digits" / "digits.safetensors")
    chosen = data[part].long()
    return data["images"][chosen].float()[:, None] / 16, data["labels"][chosen].long()
