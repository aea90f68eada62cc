"""Owns speculative decoding: a draft proposes tokens, the target verifies them in one pass.

Leviathan, Kalman and Matias 2023: the emitted tokens have exactly the target's distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.protocol import TextEngine
from core.engine.serve.generate import GenerationClock, check_request
from core.engine.serve.sampling import GREEDY, Sampling, probabilities
from core.errors import BadInput


@dataclass(frozen=True)
class Speculation:
    """New ids [1, N] and what it took: target passes, drafted and accepted tokens."""

    ids: Tensor
    steps: int
    proposed: int
    accepted: int

    @property
    def acceptance(self) -> float | None:
        """Share of the drafted tokens that were kept; None when none was drafted."""
        return self.accepted / self.proposed if self.proposed else None

    @property
    def tokens_per_step(self) -> float:
        """Tokens emitted for each pass of the target."""
        return self.ids.shape[1] / self.steps


@torch.inference_mode()
def speculate(
    target: TextEngine,
    draft: TextEngine,
    prompt_ids: Tensor,
    max_new_tokens: int,
    draft_tokens: int = 4,
    sampling: Sampling = GREEDY,
    on_token: Callable[[Tensor], object] | None = None,
    clock: GenerationClock | None = None,
    stop_ids: tuple[int, ...] = (),
) -> Speculation:
    """Extend prompt_ids int64 [1, T] by max_new_tokens, or up to the first of `stop_ids` that the
    target says, where any are given; a benchmark asks for a number of tokens and gives none.

    The two may have other numbers of tokens, as embeddings that are padded differently have: what
    the draft offers is made a distribution over the tokens that both have, and a token that the
    draft has no row for is read by it as another one. Both change what is proposed, never what the
    target says. Whether they have one tokenizer is the caller's to know.

    Raises BadInput for a batch above 1 or too few positions.
    """
    for engine in (target, draft):
        check_request(engine, prompt_ids, max_new_tokens)
    if prompt_ids.shape[0] != 1:
        raise BadInput(f"speculation runs one sequence at a time, not {prompt_ids.shape[0]}.")
    if draft_tokens < 1:
        raise BadInput(f"draft_tokens must be 1 or more, not {draft_tokens}.")
    if clock is not None:
        clock.start()
    generator = sampling.generator(target.device)
    tokens: list[int] = prompt_ids[0].tolist()
    end = len(tokens) + max_new_tokens
    caches = target.new_cache(1, end), draft.new_cache(1, end)
    steps = proposed = accepted = 0
    while len(tokens) < end:
        # The first pass only reads the prompt; the last token needs no draft.
        count = min(draft_tokens, end - len(tokens) - 1) if steps else 0
        drafted, offers = _propose(
            draft, caches[1], tokens, count, sampling, generator, target.vocab_size
        )
        unseen = torch.tensor([tokens[caches[0].length :] + drafted])
        logits = target.forward(unseen, caches[0], last_only=count == 0)[0, -count - 1 :]
        kept, following = verify(
            probabilities(logits, sampling), offers, drafted, generator, sampling.greedy
        )
        fresh = [*drafted[:kept], following]
        ended = next((at for at, token in enumerate(fresh) if token in stop_ids), None)
        if ended is not None:
            fresh = fresh[: ended + 1]
        tokens += fresh
        for cache in caches:
            cache.truncate(min(cache.length, len(tokens) - 1))
        steps, proposed, accepted = steps + 1, proposed + count, accepted + kept
        if clock is not None:
            clock.tick(len(fresh))
        if on_token is not None:
            for token in fresh:
                on_token(torch.tensor([token]))
        if ended is not None:
            break
    ids = torch.tensor([tokens[prompt_ids.shape[1] :]])
    return Speculation(ids, steps, proposed, accepted)


def _propose(
    draft: TextEngine,
    cache: object,
    tokens: list[int],
    count: int,
    sampling: Sampling,
    generator: torch.Generator,
    width: int,
) -> tuple[list[int], Tensor]:
    """`count` tokens of the draft and the distributions [count, width] that they were drawn from,
    over the target's tokens; one that the draft does not have is never offered.
    """
    drafted: list[int] = []
    offers: list[Tensor] = []
    shared = min(width, draft.vocab_size)
    unseen = tokens[cache.length :] if count else []  # type: ignore[attr-defined]
    unseen = [token if token < draft.vocab_size else 0 for token in unseen]
    for _ in range(count):
        logits = draft.forward(torch.tensor([unseen]), cache, last_only=True)[0, -1, :shared]
        shares = torch.nn.functional.pad(probabilities(logits, sampling), (0, width - shared))
        offers.append(shares)
        drafted.append(_pick(shares, generator, sampling.greedy))
        unseen = drafted[-1:]
    return drafted, torch.stack(offers) if offers else torch.zeros(0, width)


def verify(
    wanted: Tensor, offers: Tensor, drafted: list[int], generator: torch.Generator, greedy: bool
) -> tuple[int, int]:
    """How many drafted tokens stand, and the token that follows them.

    wanted [n + 1, V] are the target's distributions, offers [n, V] the draft's. Token i stands with
    probability min(1, p(x) / q(x)); after a refusal the next token comes from `residual`.
    """
    for i, token in enumerate(drafted):
        p, q = float(wanted[i, token]), float(offers[i, token])
        if greedy:
            stands = p > 0
        else:
            chance = torch.rand((), generator=generator, device=generator.device)
            stands = float(chance) * q < p
        if not stands:
            rest = wanted[i] if greedy else residual(wanted[i], offers[i])
            return i, _pick(rest, generator, greedy)
    return len(drafted), _pick(wanted[-1], generator, greedy)


def residual(wanted: Tensor, offered: Tensor) -> Tensor:
    """normalize(max(0, p - q)), the distribution after a refusal; p itself when nothing is left."""
    left = (wanted - offered).clamp(min=0)
    total = left.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, left / total, wanted)


def _pick(shares: Tensor, generator: torch.Generator, greedy: bool) -> int:
    if greedy:
        return int(shares.argmax())
    return int(torch.multinomial(shares, 1, generator=generator))
