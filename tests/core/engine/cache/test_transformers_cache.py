"""Tokens taken back from the caches of sliding windows, against passes without any cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from speculating import speculate

from core.engine.cache.rewinding_layer import MARGIN
from core.engine.serve.generate import generate
from core.engine.transformers_engine import TransformersEngine
from core.errors import BadInput

SHAPE: dict[str, Any] = {
    "vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 48, "max_position_embeddings": 256, "tie_word_embeddings": False,
}  # fmt: skip
WINDOW = 9
SLIDING: dict[str, dict[str, Any]] = {
    "gemma2": {}, "gemma3_text": {}, "mistral": {}, "starcoder2": {}, "phi3": {},
    "mixtral": {"num_local_experts": 2},
    "qwen2_moe": {"use_sliding_window": True, "max_window_layers": 1, "num_experts": 2,
                  "num_experts_per_tok": 1, "moe_intermediate_size": 16,
                  "shared_expert_intermediate_size": 16},
}  # fmt: skip
FULL: dict[str, dict[str, Any]] = {
    "olmo2": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
}


def made(family: str, noise: float = 0.0) -> TransformersEngine:
    """A random float32 model with a sliding window, or one that differs from it a little."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = SHAPE | FULL.get(family, {"sliding_window": WINDOW} | SLIDING.get(family, {}))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields)).float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.25)
                weight += noise * weight.std() * torch.randn_like(weight)
    return TransformersEngine(model)


@pytest.mark.parametrize("family", [*SLIDING, *FULL])
def test_any_cut_leaves_the_cache_as_if_the_tokens_had_never_been_said(family: str) -> None:
    engine = made(family)
    said = torch.randint(3, 61, (2, 80), generator=torch.Generator().manual_seed(4))
    # (tokens to take back, tokens to say then): shallow, across the window, deeper than is kept.
    steps = [(0, 5), (2, 6), (0, 1), (1, 3), (4, 9), (0, 30), (3, 1), (MARGIN, 4), (10, 2), (8, 1),
             (0, 38), (38, 1), (3, 38), (MARGIN + 3, 6), (1, 1)]  # fmt: skip
    cache, text = engine.new_cache(2, 400), torch.zeros(2, 0, dtype=torch.int64)
    fresh = 0
    for back, new in steps:
        cache.truncate(cache.length - back)
        text = text[:, : text.shape[1] - back]
        part = said[:, fresh % 40 : fresh % 40 + new]
        fresh += new
        text = torch.cat([text, part], dim=1)
        got = engine.forward(part, cache)
        want = engine.forward(text)[:, -part.shape[1] :]
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
        assert cache.length == text.shape[1]


def test_a_window_keeps_what_it_shows_and_a_margin() -> None:
    engine = made("mistral")
    cache = engine.new_cache(1, 200)
    assert cache.nbytes == 0
    engine.forward(torch.ones(1, 150, dtype=torch.int64), cache)
    tokens = WINDOW - 1 + MARGIN
    assert cache.nbytes == 2 * 2 * tokens * 2 * 8 * 4
    # A cut that is kept in reserve computes nothing again; a deeper one starts over.
    cache.truncate(150 - MARGIN)
    assert cache.held == 150 - MARGIN
    cache.truncate(60)
    assert (cache.held, cache.length, cache.nbytes) == (0, 60, 0)


def test_lengths_that_a_cache_does_not_have_are_refused() -> None:
    engine = made("mistral")
    cache = engine.new_cache(1, 6)
    engine.forward(torch.ones(1, 4, dtype=torch.int64), cache)
    for length in (-1, 5):
        with pytest.raises(BadInput, match=f"cannot truncate a cache of 4 tokens to {length}"):
            cache.truncate(length)
    with pytest.raises(BadInput, match="made for 1 rows of 6 tokens and holds 4"):
        engine.forward(torch.ones(1, 3, dtype=torch.int64), cache)
    with pytest.raises(BadInput, match="made for 1 rows"):
        engine.forward(torch.ones(2, 1, dtype=torch.int64), cache)


@pytest.mark.parametrize("family", SLIDING)
@pytest.mark.parametrize("length", [3, 25])
def test_speculation_past_the_window_says_what_the_target_says_in_transformers(
    family: str, length: int
) -> None:
    target, draft = made(family), made(family, noise=0.1)
    prompt = torch.randint(3, 61, (1, length), generator=torch.Generator().manual_seed(length))
    settings: Any = target.model.generation_config
    settings.eos_token_id = None
    want = target.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False
    )[:, length:]
    assert torch.equal(generate(target, prompt, 24), want)
    result = speculate(target, draft, prompt, 24, 4)
    assert torch.equal(result.ids, want)
    assert 0 < result.stats.accepted < result.stats.proposed
