"""Position schemes that change with the length of a text, against transformers itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from speculating import speculate

from core.engine.positions import farthest, original_positions
from core.engine.serve.generate import generate
from core.engine.transformers_engine import TransformersEngine

ORIGINAL = 16
SHAPE: dict[str, Any] = {
    "vocab_size": 61, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0, "hidden_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
    "intermediate_size": 48, "tie_word_embeddings": False,
}  # fmt: skip
HALF = 6
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.02 * i for i in range(HALF)],
    "long_factor": [1.5 + 0.7 * i for i in range(HALF)],
    "original_max_position_embeddings": ORIGINAL,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
}  # fmt: skip
LLAMA3 = YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# Where dynamic NTK begins transformers takes max_position_embeddings.
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "phi3-longrope": ("phi3", LONGROPE, 64),
    "phi3-longrope-window": ("phi3", LONGROPE, 64),
    "olmo2-longrope": ("olmo2", LONGROPE, 64),
    "olmo2-dynamic": ("olmo2", DYNAMIC, ORIGINAL),
    "gpt_neox-dynamic": ("gpt_neox", DYNAMIC, ORIGINAL),
    "granite-yarn": ("granite", YARN, 64),
    "olmo2-llama3": ("olmo2", LLAMA3, 64),
}


def model_of(case: str, seed: int = 0) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    family, rope, length = CASES[case]
    fields = SHAPE | {"max_position_embeddings": length, "rope_parameters": copy.deepcopy(rope)}
    if family == "phi3":
        fields["original_max_position_embeddings"] = ORIGINAL
        fields["sliding_window"] = 9 if case.endswith("window") else None
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields)).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.25)
    return model


def ids(length: int, batch: int = 1) -> torch.Tensor:
    return torch.randint(3, 61, (batch, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [4, ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, 30])
def test_text_across_the_original_length_is_that_of_a_fresh_transformers_model(
    case: str, length: int
) -> None:
    engine = TransformersEngine(model_of(case))
    # What the engine ran before must not matter.
    engine.forward(ids(50))
    prompt = ids(length, batch=2)
    # Where the cache is computed again, transformers 5.17 hands the last token alone on: without a
    # cache every version says what the newest says with one.
    want = model_of(case).generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False,
        use_cache=not case.startswith("phi3"),
    )[:, length:]  # fmt: skip
    assert torch.equal(generate(engine, prompt, 20), want)


@pytest.mark.parametrize("case", CASES)
def test_logits_do_not_depend_on_what_the_engine_ran_before(case: str) -> None:
    engine = TransformersEngine(model_of(case))
    texts = [ids(n) for n in (10, 60, 30, ORIGINAL, ORIGINAL + 1, 12)]
    for text in texts:
        with torch.no_grad():
            want = model_of(case)(input_ids=text, use_cache=False).logits
        torch.testing.assert_close(engine.forward(text), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["phi3-longrope", "phi3-longrope-window"])
@pytest.mark.parametrize("cut", [1, 5, ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, 20])
def test_longrope_in_chunks_and_steps_ends_as_one_pass(case: str, cut: int) -> None:
    engine, text = TransformersEngine(model_of(case)), ids(30)
    cache = engine.new_cache(1, 40)
    for start in range(0, 30, cut):
        part = text[:, start : start + cut]
        got = engine.forward(part, cache)
        # Each step says what a pass over the text so far says.
        for at in range(part.shape[1]):
            if start or start + part.shape[1] <= ORIGINAL:
                want = engine.forward(text[:, : start + at + 1])[:, -1]
                torch.testing.assert_close(got[:, at], want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got[:, -1], engine.forward(text)[:, -1], rtol=1e-4, atol=1e-4)


def test_keys_are_turned_back_when_a_text_is_cut_to_its_original_length() -> None:
    engine, text = TransformersEngine(model_of("phi3-longrope")), ids(24)
    cache = engine.new_cache(1, 40)
    engine.forward(text, cache)
    for length in (22, ORIGINAL + 1, ORIGINAL, 9, ORIGINAL - 2):
        cache.truncate(min(length, cache.length))
        begin = cache.length
        upto = text[:, begin : begin + 3]
        got = engine.forward(upto, cache)
        want = torch.stack(
            [engine.forward(text[:, : begin + n + 1])[:, -1] for n in range(upto.shape[1])], dim=1
        )
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["phi3-longrope", "phi3-longrope-window"])
@pytest.mark.parametrize("length", [5, ORIGINAL - 2, ORIGINAL + 2])
def test_speculation_across_the_original_length_says_what_the_target_says(
    case: str, length: int
) -> None:
    target, other = model_of(case), model_of(case)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.1 * weight.std() * torch.randn_like(weight)
    prompt = ids(length)
    want = generate(TransformersEngine(target), prompt, 24)
    found = speculate(TransformersEngine(target), TransformersEngine(other), prompt, 24, 4)
    assert torch.equal(found.ids, want)
    assert found.stats.accepted > 0


def test_what_a_config_says_of_its_lengths() -> None:
    assert original_positions(model_of("phi3-longrope").config) == ORIGINAL
    assert original_positions(model_of("olmo2-longrope").config) is None
    assert original_positions(model_of("granite-yarn").config) is None
    assert farthest(model_of("olmo2-dynamic").config) == 4 * ORIGINAL
    assert farthest(model_of("granite-yarn").config) == 64
