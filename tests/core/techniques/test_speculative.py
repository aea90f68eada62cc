"""The draft is loaded beside the model, or refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from core.deployment import Deployment
from core.engine.generate import generate
from core.engine.speculate import speculate
from core.errors import Refused
from core.plan import Case
from core.techniques.decode.speculative import DRAFTS, Speculative

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]


def pycode(case: Case) -> Case:
    return replace(case, model=replace(case.model, id="pycode"))


def test_the_bundled_draft_is_loaded_and_gives_the_models_own_tokens(
    case: Case, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny("bf16", vocab_size=4096, bos_token_id=0)
    deployment, notes = deploy(engine, pycode(case))
    Speculative(tokens=2).apply(deployment)
    assert deployment.draft.vocab_size == 4096
    assert deployment.draft.weight_bytes() == 1_262_720 * 2
    assert deployment.draft_tokens == 2
    assert notes == ["draft pycode-small proposes 2 tokens a step"]
    prompt = torch.randint(1, 4096, (1, 11))
    alone = generate(engine, prompt, 12)
    assert torch.equal(speculate(engine, deployment.draft, prompt, 12, 2).ids, alone)


def test_a_draft_with_another_vocabulary_is_refused(
    case: Case, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    deployment, _ = deploy(tiny("bf16"), pycode(case))
    with pytest.raises(Refused, match="draft pycode-small has 4096 tokens, the model 131"):
        Speculative().apply(deployment)
    assert deployment.draft is None


@pytest.mark.parametrize("draft", ["nowhere-near", "./gone", "shape:none", "digits-mlp"])
def test_a_draft_that_cannot_be_used_is_refused(
    draft: str, case: Case, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    deployment, _ = deploy(tiny("bf16"), pycode(case))
    with pytest.raises(Refused, match=r"^speculative: "):
        Speculative(draft=draft).apply(deployment)


def test_known_drafts_are_bundled_and_smaller() -> None:
    from core.catalogue import models

    for model, draft in DRAFTS.items():
        assert models.resolve(draft).params() < models.resolve(model).params() / 5
