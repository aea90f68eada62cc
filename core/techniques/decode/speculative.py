"""Speculative decoding with a draft model: greedy verification or exact rejection sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from core.catalogue import models
from core.engine.load.load import load_engine, load_tokenizer
from core.engine.serve.proposer import Draft
from core.errors import BadInput, Refused
from core.files.vocabulary import unlike
from core.plan import Case
from core.techniques.base import QUICK, STANDARD, Base, Proposal
from core.techniques.effects import Effects

# Draft models by the model they speak for: same tokenizer, a tenth of the size.
DRAFTS = {"pycode": "pycode-small"}


@dataclass(frozen=True)
class Speculative(Base):
    """A draft proposes `tokens` tokens, the model verifies them in one pass, after Leviathan et al.
    2023.
    """

    tokens: int = 3
    draft: str = "auto"

    name: ClassVar[str] = "speculative"
    kind: ClassVar[str] = "decode"
    title: ClassVar[str] = "Speculative decoding with a draft model"
    limits: ClassVar[dict[str, tuple[float, float]]] = {"tokens": (1, 16)}

    def draft_of(self, case: Case) -> str | None:
        """Id of the draft model, or None when none is known."""
        return DRAFTS.get(case.model.id) if self.draft == "auto" else self.draft

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """3 tokens, then fewer and more."""
        return (
            Proposal(cls(), QUICK, role="usual"),
            Proposal(cls(2), STANDARD),
            Proposal(cls(5), STANDARD),
        )

    def refuse(self, case: Case) -> str | None:
        """Needs a decoder and a draft with the same tokenizer."""
        if case.model.task != "text":
            return "needs a decoder; this model is an image classifier"
        if self.draft_of(case) is None:
            return (
                f"no draft model is known for {case.model.id}:"
                " name one with speculative:draft=MODEL"
            )
        if self.draft_of(case) == case.model.id:
            return "the draft must be another, smaller model"
        return None

    def effect(self, before: Effects, case: Case) -> Effects:
        """A draft model beside the model, `tokens` proposals a step."""
        return replace(before, draft=self.draft_of(case), draft_tokens=self.tokens)

    def apply(self, deployment: Any) -> None:
        """Load the draft beside the model."""
        name = self.draft_of(deployment.case)
        assert name is not None
        try:
            model = models.resolve(name)
            if model.task != "text":
                raise BadInput(f"the draft {name} is an image classifier, not a language model")
            draft = load_engine(model, device=deployment.device)
            theirs = None if deployment.tokenizer is None else load_tokenizer(model)
        except BadInput as error:
            raise Refused(f"speculative: {error}") from None
        self._check(deployment, name, draft.vocab_size, theirs)
        deployment.serving = replace(deployment.serving, proposer=Draft(draft, self.tokens))
        deployment.note(f"draft {name} proposes {self.tokens} tokens a step")

    def _check(self, deployment: Any, name: str, rows: int, theirs: Any) -> None:
        """Raise Refused unless the draft makes the same ids of a text. Embeddings may be padded
        differently; without a tokenizer (random weights) as many rows must do.
        """
        size = deployment.engine.vocab_size
        if theirs is None:
            if rows != size:
                raise Refused(
                    f"speculative: the draft {name} has {rows} tokens, the model {size}, and there"
                    " is no tokenizer to compare: they need the same number"
                )
            return
        reason = unlike(deployment.tokenizer, theirs, min(rows, size))
        if reason:
            raise Refused(f"speculative: the draft {name} needs the model's tokenizer: {reason}")
