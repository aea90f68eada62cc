"""Owns what proposes tokens ahead of the model, and the draft model that does.

Whether proposals stand is core.engine.serve.verify's. Imports torch only where a draft runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from core.engine.protocol import TextEngine
    from core.engine.serve.caches import Caches
    from core.engine.serve.drafting import Drafting
    from core.engine.serve.row_tokens import RowTokens


class Proposals(Protocol):
    """The proposer's side of one batch that is being served."""

    def propose(self, rows: RowTokens, count: int, width: int) -> tuple[Tensor, Tensor | None]:
        """`count` tokens for each sequence, int64 [batch, count] wherever they were chosen, each
        below the target's `width`; and the distributions float32 [batch, count, width] that they
        were drawn from, None where all are greedy.
        """


class Proposer(Protocol):
    """Proposes up to `tokens` tokens a step for every sequence of a batch."""

    @property
    def tokens(self) -> int:
        """The most tokens that are proposed at a time."""

    @property
    def engines(self) -> tuple[TextEngine, ...]:
        """Models that are resident beside the target."""

    def begin(self, batch: int, capacity: int, caches: Caches) -> Proposals:
        """Get ready for a batch whose sequences reach at most `capacity` tokens; `caches` lends
        what an engine needs.
        """


@dataclass(frozen=True)
class Draft:
    """A smaller model proposes `tokens` tokens a step (Leviathan et al. 2023).

    The two may have other numbers of tokens, as embeddings that are padded differently have: what
    the draft offers is made a distribution over the tokens that both have, and a token that the
    draft has no row for is read by it as another one. Both change what is proposed, never what the
    target says. Whether they have one tokenizer is the caller's to know.
    """

    engine: TextEngine
    tokens: int = 4

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise BadInput(f"a draft proposes 1 token a step or more, not {self.tokens}.")

    @property
    def engines(self) -> tuple[TextEngine, ...]:
        """See Proposer."""
        return (self.engine,)

    def begin(self, batch: int, capacity: int, caches: Caches) -> Drafting:
        """See Proposer."""
        from core.engine.serve.drafting import Drafting

        return Drafting(self.engine, caches.lend(self.engine, batch, capacity))
