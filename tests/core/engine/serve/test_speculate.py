"""Speculation says exactly what the target alone would say, in law or to the letter."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from speculating import speculate
from table_model import TableModel, pair
from transformers_models import lean, transformers_model

from core.engine.serve.generate import generate
from core.engine.serve.sampling import Sampling, probabilities
from core.engine.serve.verify import residual, verify
from core.errors import BadInput


@pytest.mark.parametrize("gamma", [1, 2, 4, 7])
@pytest.mark.parametrize("draft_noise", [0.0, 0.02, 1.0])
def test_greedy_output_is_that_of_the_target_alone(gamma: int, draft_noise: float) -> None:
    # In bf16, up to four rows are summed in one order: the logits are equal to the last bit.
    dtype = "bf16" if gamma < 4 else "fp32"
    model = transformers_model("llama")
    target = lean(model, dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight += draft_noise * torch.randn_like(weight)
    draft = lean(model, dtype)
    for length in (1, 13):
        prompt = torch.randint(0, 97, (1, length))
        result = speculate(target, draft, prompt, 23, gamma)
        assert torch.equal(result.ids, generate(target, prompt, 23))
        stats = result.stats
        assert stats.accepted <= stats.proposed <= gamma * stats.passes
        assert stats.passes + stats.accepted == 23
        assert (stats.verified, stats.verified_tokens) == (stats.passes - 1, 22)
        assert len(result.sequences[0].stamps) == 23
        if draft_noise == 0:
            assert stats.accepted == stats.proposed
            assert 23 / stats.passes > 0.7 * gamma


@pytest.mark.parametrize("gamma", [1, 3, 6])
def test_text_ends_at_the_token_at_which_the_target_alone_ends(gamma: int) -> None:
    model = transformers_model("llama")
    target = lean(model, "fp32")
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn_like(weight)
    draft = lean(model, "fp32")
    prompt = torch.randint(0, 97, (1, 5))
    endless = generate(target, prompt, 20)
    for stop in endless[0, :9].tolist():
        want = generate(target, prompt, 20, stop_ids=(96, stop))
        got = speculate(target, draft, prompt, 20, gamma, stop_ids=(96, stop))
        assert torch.equal(got.ids, want)
        assert want[0].tolist().index(stop) == len(got.emitted[0]) - 1


def test_the_emitted_distribution_is_exactly_the_targets() -> None:
    # One step with one drafted token: sum over the draft's choices of q min(1, p / q), plus the
    # chance of a refusal times the residual, must be p itself.
    generator = torch.Generator().manual_seed(1)
    for distance in (0.1, 1.0, 5.0):
        p = (distance * torch.randn(9, generator=generator, dtype=torch.float64)).softmax(0)
        q = (distance * torch.randn(9, generator=generator, dtype=torch.float64)).softmax(0)
        kept = torch.minimum(p, q)
        emitted = kept + (1 - kept.sum()) * residual(p, q)
        torch.testing.assert_close(emitted, p, rtol=1e-12, atol=1e-15)
    assert torch.equal(residual(p, p), p)


def test_verify_accepts_with_the_stated_probability_and_then_draws_the_residual() -> None:
    p, q = torch.tensor([[0.2, 0.3, 0.5]] * 2), torch.tensor([[0.6, 0.3, 0.1]])
    generator = torch.Generator().manual_seed(2)
    accepted = 0
    for _ in range(6000):
        said = verify(p, q, [0], generator)
        accepted += len(said) - 1
        if len(said) == 1:
            assert said == [2]  # p - q is positive for token 2 alone.
    assert abs(accepted / 6000 - 1 / 3) < 4 * (2 / 9 / 6000) ** 0.5
    assert all(len(verify(p, q, [1], generator)) == 2 for _ in range(200))


@pytest.mark.parametrize(
    ("distance", "sampling"),
    [
        (0.5, {"temperature": 1.0}),
        (3.0, {"temperature": 1.0}),
        (1.0, {"temperature": 0.7, "top_k": 3}),
        (1.0, {"temperature": 1.3, "top_p": 0.8}),
    ],
)
def test_sampled_texts_are_distributed_like_the_targets(
    distance: float, sampling: dict[str, Any]
) -> None:
    target, draft = pair(4, distance)
    law = probabilities(target.logits, Sampling(**sampling)).double()
    texts = list(itertools.product(range(4), repeat=3))
    expected = torch.tensor(
        [law[2, a] * law[a, b] * law[b, c] for a, b, c in texts], dtype=torch.float64
    )
    runs = 2000
    counts = torch.zeros(len(texts))
    prompt = torch.tensor([[2]])
    for seed in range(runs):
        result = speculate(target, draft, prompt, 3, 2, Sampling(**sampling, seed=seed))
        counts[texts.index(tuple(result.ids[0].tolist()))] += 1
    possible = expected > 0
    assert float(counts[~possible].sum()) == 0
    share = expected[possible] / expected.sum()
    assert chisquare(counts[possible].numpy(), (runs * share).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("rows", [3, 6])
@pytest.mark.parametrize("sampling", [{"temperature": 1.0}, {"temperature": 0.8, "top_k": 2}])
def test_a_draft_of_another_width_changes_nothing_of_the_law(
    rows: int, sampling: dict[str, Any]
) -> None:
    """Fewer rows than the target's 4: token 3 is never offered; more: rows 4 and 5 are cut off."""
    target, draft = pair(4, 0.0)[0], pair(6, 1.0, seed=3)[1]
    draft = TableModel(draft.logits[:rows, :rows].contiguous())
    law = probabilities(target.logits, Sampling(**sampling)).double()
    texts = list(itertools.product(range(4), repeat=2))
    # The first token comes from the target alone, the second is drafted.
    expected = torch.tensor([law[3, a] * law[a, b] for a, b in texts])
    counts = torch.zeros(len(texts))
    for seed in range(2000):
        result = speculate(
            target, draft, torch.tensor([[3]]), 2, 2, Sampling(**sampling, seed=seed)
        )
        counts[texts.index(tuple(result.ids[0].tolist()))] += 1
    possible = expected > 0
    assert float(counts[~possible].sum()) == 0
    share = expected[possible] / expected.sum()
    assert chisquare(counts[possible].numpy(), (2000 * share).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("rows", [3, 6])
def test_greedy_output_is_the_targets_whatever_rows_the_draft_has(rows: int) -> None:
    target, draft = pair(4, 0.0)[0], TableModel(pair(6, 0.0, seed=3)[1].logits[:rows, :rows])
    for start in range(4):
        prompt = torch.tensor([[start]])
        got = speculate(target, draft, prompt, 9, 3).ids[0].tolist()
        want, at = [], start
        for _ in range(9):
            at = int(target.logits[at].argmax())
            want.append(at)
        assert got == want


def test_impossible_pairs_are_refused() -> None:
    target, _ = pair(4, 1.0)
    prompt = torch.tensor([[1]])
    with pytest.raises(BadInput, match="a draft proposes 1 token a step or more, not 0"):
        speculate(target, target, prompt, 3, 0)
