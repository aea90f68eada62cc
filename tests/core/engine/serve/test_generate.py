"""Sampling, the generation loop and its clock."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from transformers_models import lean, transformers_model

from core.engine.serve.generate import generate
from core.engine.serve.sampling import GREEDY, Sampling, draw, probabilities
from core.errors import BadInput


def test_greedy_text_equals_that_of_transformers() -> None:
    model = transformers_model("llama")
    prompt = torch.randint(3, 97, (3, 9))
    want = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, min_new_tokens=12,
        do_sample=False, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    got = generate(lean(model, "fp32"), prompt, 12)
    assert torch.equal(got, want[:, 9:])


def test_greedy_probabilities_are_one_hot_at_the_likeliest() -> None:
    logits = torch.randn(4, 3, 50)
    shares = probabilities(logits, GREEDY)
    assert torch.equal(shares.argmax(-1), logits.argmax(-1))
    assert torch.equal(shares.sum(-1), torch.ones(4, 3))
    assert torch.equal(draw(logits[:, 0], GREEDY), logits[:, 0].argmax(-1))


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0), [0.5, 0.25, 0.15, 0.1]),
        (Sampling(1.0, top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(1.0, top_p=0.49), [1, 0, 0, 0]),
        (Sampling(1.0, top_p=0.51), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(1.0, top_p=1e-6), [1, 0, 0, 0]),
        (Sampling(1.0, top_k=3, top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(0.5), [0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345]),
        (Sampling(1.0, top_k=99), [0.5, 0.25, 0.15, 0.1]),
    ],
)
def test_temperature_top_k_and_top_p_cut_as_defined(
    sampling: Sampling, expected: list[float]
) -> None:
    order = torch.tensor([2, 0, 3, 1])
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()[order]
    want = torch.tensor(expected, dtype=torch.float32)[order]
    torch.testing.assert_close(probabilities(logits, sampling), want)


def test_drawn_tokens_follow_the_probabilities() -> None:
    logits = torch.randn(12)
    sampling = Sampling(0.9, top_p=0.95, seed=5)
    shares = probabilities(logits, sampling)
    drawn = draw(logits.expand(20000, 12), sampling, sampling.generator())
    counts = torch.bincount(drawn, minlength=12)
    kept = shares > 0
    assert int(counts[~kept].sum()) == 0
    expected = shares[kept].double()
    result = chisquare(counts[kept].numpy(), (20000 * expected / expected.sum()).numpy())
    assert result.pvalue > 1e-3


def test_the_same_seed_says_the_same_and_another_seed_something_else() -> None:
    decoder = lean(transformers_model("qwen2"), "fp32")
    prompt = torch.randint(0, 97, (2, 5))

    def say(seed: int) -> list[list[int]]:
        return generate(decoder, prompt, 16, Sampling(1.0, seed=seed)).tolist()  # type: ignore[no-any-return]

    assert say(3) == say(3)
    assert say(3) != say(4)


def test_it_stops_at_a_stop_token_only_when_asked_and_when_all_rows_have_one() -> None:
    decoder = lean(transformers_model("llama"), "fp32")
    prompt = torch.tensor([[1, 2, 3]])
    full = generate(decoder, prompt, 10)
    stop = int(full[0, 4])
    first = full[0].tolist().index(stop)
    assert generate(decoder, prompt, 10, stop_ids=(stop,)).shape == (1, first + 1)
    assert full.shape == (1, 10)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": -1},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"temperature": float("nan")},
    ],
)
def test_settings_without_meaning_are_refused(sampling: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(sampling))} must be"):
        Sampling(**sampling)  # type: ignore[arg-type]


def test_a_request_beyond_the_positions_is_refused_before_anything_runs() -> None:
    decoder = lean(transformers_model("llama"), "bf16")
    with pytest.raises(BadInput, match="250 prompt and 7 new tokens exceed the model's 256"):
        generate(decoder, torch.zeros(1, 250, dtype=torch.int64), 7)
    with pytest.raises(BadInput, match="max_new_tokens must be 1 or more"):
        generate(decoder, torch.zeros(1, 2, dtype=torch.int64), 0)
