"""How a causal language model is read for quality: log-probabilities of given tokens, and greedy
text. Nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from core.data.passages import fitted, opened
from core.errors import BadInput

if TYPE_CHECKING:
    import torch

# Logits held at once: 16 million are 64 MB in float32, whatever the vocabulary.
MAX_LOGITS = 1 << 24
# Of them in float64 at once: 2 million are 16 MB.
MAX_EXACT = 1 << 21


def log_probabilities(
    engine: Any, ids: torch.Tensor, scored: int, most: int = MAX_LOGITS
) -> Iterator[torch.Tensor]:
    """float64 [t, V] parts, in order: log p of each of the last `scored` tokens of `ids` int64 [n],
    given all tokens before it.

    A long passage is read in parts behind one cache, so that no more than `most` logits exist.
    Logits are float32; in float32 their normalization alone errs by 1e-6 nats, more than the KL of
    two programs of a float32 model.
    """
    import torch

    inputs, vocabulary = len(ids) - 1, engine.vocab_size
    if inputs * vocabulary <= most:
        yield from _normalized(engine.forward(ids[None, :-1])[0, -scored:])
        return
    cache = engine.new_cache(1, inputs)
    room = max(1, most // vocabulary)
    unscored = inputs - scored
    for start in range(0, unscored, room):
        engine.forward(ids[None, start : min(start + room, unscored)], cache, last_only=True)
    parts = -(-scored // room)
    for part in torch.tensor_split(ids[unscored:-1], parts):
        yield from _normalized(engine.forward(part[None], cache)[0])


def log_likelihood(engine: Any, ids: torch.Tensor, scored: int) -> tuple[float, bool]:
    """Summed log p of the last `scored` tokens of `ids`, and whether greedy text would be they."""
    total, greedy = 0.0, True
    targets = ids[len(ids) - scored :]
    for part in log_probabilities(engine, ids, scored):
        own, targets = targets[: len(part)].to(part.device), targets[len(part) :]
        total += float(part.gather(-1, own[:, None]).double().sum())
        greedy = greedy and bool((part.argmax(-1) == own).all())
    return total, greedy


def _normalized(logits: torch.Tensor) -> Iterator[torch.Tensor]:
    """log p in float64 of logits float32 [t, V], some rows at a time."""
    import torch

    for rows in logits.split(max(1, MAX_EXACT // logits.shape[1])):
        if not bool(torch.isfinite(rows).all()):
            raise BadInput("the model's logits are not finite on the quality data: it is broken")
        yield torch.log_softmax(rows.double(), dim=-1)


def encode_pair(
    tokenizer: Any, prefix: Sequence[int], context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """(ids of the context behind what a text begins with, ids of the continuation), cut where
    lm-eval cuts them.

    Both are tokenized together, since a tokenizer may join across the boundary: spaces that end the
    context belong to the continuation, whose tokens are those beyond the context's own number.
    """
    if not prefix and not context:
        raise BadInput("an empty prompt needs a model with a start token")
    trimmed = context.rstrip()
    continuation, context = context[len(trimmed) :] + continuation, trimmed
    whole = list(tokenizer.encode(context + continuation, add_special_tokens=False).ids)
    alone = len(tokenizer.encode(context, add_special_tokens=False).ids)
    # A tokenizer that joins the whole continuation into the context still leaves one token.
    cut = min(alone, len(whole) - 1) if whole else 0
    return opened(whole[:cut], prefix), whole[cut:]


def continuation_score(
    engine: Any, context: list[int], continuation: list[int], prefix: Sequence[int] = ()
) -> tuple[float, bool]:
    """Summed log p of the continuation's ids behind the context's, and whether greedy.

    A context too long for the model loses its beginning, but for `prefix`; a continuation too long
    is refused.
    """
    import torch

    room = engine.max_positions + 1
    if not continuation or len(continuation) >= room:
        raise BadInput(
            f"an answer has {len(continuation)} tokens; 1 to {room - 1} can be scored by this model"
        )
    ids = torch.tensor(fitted(context + continuation, room, prefix), dtype=torch.int64)
    return log_likelihood(engine, ids, min(len(continuation), len(ids) - 1))


def greedy_text(
    engine: Any,
    tokenizer: Any,
    context: list[int],
    stops: tuple[str, ...],
    most: int,
    prefix: Sequence[int] = (),
) -> str:
    """Greedy text behind `context`, at most `most` tokens, ending before the first of `stops` or
    at one of the model's stop tokens.
    """
    import torch

    most = min(most, engine.max_positions - 1)
    prompt = fitted(context, engine.max_positions - most, prefix)
    cache = engine.new_cache(1, len(prompt) + most)
    step, new = torch.tensor([prompt], dtype=torch.int64), list[int]()
    text: str = ""
    for _ in range(most):
        chosen = int(engine.forward(step, cache, last_only=True)[0, -1].argmax())
        if chosen in engine.special_ids.stops:
            break
        new.append(chosen)
        text = str(tokenizer.decode(new, skip_special_tokens=True))
        ends = [position for stop in stops if (position := text.find(stop)) >= 0]
        if ends:
            return text[: min(ends)]
        step = torch.tensor([[chosen]], dtype=torch.int64)
    return text
