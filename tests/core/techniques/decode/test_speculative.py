"""The draft is loaded beside the model, or refused with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.engine.serve.generate import generate
from core.errors import Refused
from core.plan import Case
from core.techniques.decode.speculative import DRAFTS, Speculative
from core.techniques.deployment import Deployment

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
    (draft,) = deployment.serving.beside
    assert draft.vocab_size == 4096
    assert draft.weight_bytes() == 1_262_720 * 2
    assert deployment.weight_bytes() == engine.weight_bytes() + draft.weight_bytes()
    assert deployment.serving.proposer is not None
    assert deployment.serving.proposer.tokens == 2
    assert notes == ["draft pycode-small proposes 2 tokens a step"]
    prompt = torch.randint(1, 4096, (1, 11))
    alone = generate(engine, prompt, 12)
    assert torch.equal(generate(engine, prompt, 12, proposer=deployment.serving.proposer), alone)


def test_a_draft_with_another_vocabulary_is_refused(
    case: Case, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    deployment, _ = deploy(tiny("bf16"), pycode(case))
    with pytest.raises(Refused, match="draft pycode-small has 4096 tokens, the model 131"):
        Speculative().apply(deployment)
    assert deployment.serving.proposer is None


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


@pytest.mark.parametrize("rows", [100, 131, 200])
def test_drafts_are_judged_by_the_tokenizer_and_not_by_their_rows(
    rows: int, case: Case, tiny: Callable[..., Any], deploy: Deploy, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    def words(first: str) -> Any:
        # One letter a token: 95 of them, so that each model has rows to spare.
        vocab = {chr(33 + i): i for i in range(94)} | {first: 94}
        made = Tokenizer(models.BPE(vocab, []))
        made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.Fuse()
        return made

    draft = tiny("bf16", seed=2, vocab_size=rows)
    config = {**draft.config.to_hf(), "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(
        {name: one.contiguous() for name, one in draft.export_tensors().items()},
        tmp_path / "model.safetensors",
    )
    words("Ġ").save(str(tmp_path / "tokenizer.json"))
    for first, same in (("Ġ", True), ("Ġx", False)):
        deployment, _ = deploy(tiny("bf16"), case, tokenizer=words(first))
        technique = Speculative(draft=str(tmp_path), tokens=2)
        if not same:
            with pytest.raises(Refused, match="needs the model's tokenizer: the id 94 is 'Ġx'"):
                technique.apply(deployment)
            continue
        technique.apply(deployment)
        prompt = torch.randint(0, 131, (1, 11))
        alone = generate(deployment.engine, prompt, 12)
        proposer = deployment.serving.proposer
        assert torch.equal(generate(deployment.engine, prompt, 12, proposer=proposer), alone)
