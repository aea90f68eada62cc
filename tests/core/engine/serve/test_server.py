"""The server: who goes with whom, what a step emits and when, and speculation over a batch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from speculating import speculate
from table_model import TableModel, pair
from transformers_models import lean, transformers_model

from core.engine.decoder import Decoder
from core.engine.serve.generate import generate
from core.engine.serve.proposer import Draft
from core.engine.serve.sampling import Sampling, probabilities
from core.engine.serve.scheduler import Static
from core.engine.serve.sequence import Request, Sequence
from core.engine.serve.server import EngineServer
from core.engine.transformers_engine import TransformersEngine
from core.errors import BadInput
from kernels.kv_codes import KVFormat


def noisy(family: str, dtype: str, noise: float) -> tuple[Decoder, Decoder]:
    """A lean decoder and a draft whose weights are off by `noise`."""
    model = transformers_model(family)
    target = lean(model, dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn_like(weight)
    return target, lean(model, dtype)


def run(server: EngineServer) -> list[list[tuple[int, list[int]]]]:
    """(id, new tokens) of every sequence of every step until nothing is left."""
    steps = []
    while server.phase:
        emitted = server.step()
        steps.append([(one.id, ids) for one, ids in zip(*emitted, strict=True)])
    return steps


def test_every_step_emits_a_token_for_each_sequence_and_stamps_it() -> None:
    decoder = lean(transformers_model("llama"), "bf16")
    prompts = torch.tensor([[1, 2], [3, 4]])
    server = EngineServer(decoder, Static(2))
    first, second = (server.submit(Request(prompt, 7)) for prompt in prompts)
    assert server.phase == "prefill"
    steps = [server.step()]
    assert server.phase == "decode"
    while server.phase:
        steps.append(server.step())
    assert len(steps) == server.stats().passes == 7
    want = generate(decoder, prompts, 7).tolist()
    assert [first.new, second.new] == want
    assert [[ids[0] for ids in step.tokens] for step in steps] == [
        list(ids) for ids in zip(*want, strict=True)
    ]
    assert first.stamps == second.stamps
    assert len(first.stamps) == 7
    assert first.arrived_at <= first.started_at == second.started_at < first.first_at
    assert first.tpot_s == pytest.approx((first.finished_at - first.first_at) / 6)
    assert (first.together, first.position, first.left, first.done) == (2, 9, 0, True)
    assert server.step().sequences == []


def test_a_batch_is_the_oldest_and_those_of_its_length_and_runs_to_the_longest() -> None:
    decoder = lean(transformers_model("llama"), "fp32")
    server = EngineServer(decoder, Static(2))
    sizes = [(4, 3), (2, 2), (4, 6), (2, 1), (4, 1)]
    prompts = [torch.randint(0, 97, (length,)) for length, _ in sizes]
    for prompt, (_, new) in zip(prompts, sizes, strict=True):
        server.submit(Request(prompt, new))
    steps = run(server)
    assert [[id for id, _ in step] for step in steps] == [[0, 2]] * 6 + [[1, 3]] * 2 + [[4]]
    assert [len(ids) for id, ids in itertools.chain(*steps) if id == 0] == [1, 1, 1, 0, 0, 0]
    for number, (prompt, (_, new)) in enumerate(zip(prompts, sizes, strict=True)):
        said = [ids for id, ids in itertools.chain(*steps) if id == number]
        assert list(itertools.chain(*said)) == generate(decoder, prompt[None], new)[0].tolist()


def test_requests_with_settings_of_their_own_draw_as_they_do_alone() -> None:
    decoder = lean(transformers_model("llama"), "fp32")
    prompts = torch.randint(0, 97, (3, 5))
    settings = [Sampling(1.0, seed=3), Sampling(), Sampling(0.7, top_k=9, seed=4)]
    server = EngineServer(decoder, Static(3))
    sequences = [
        server.submit(Request(prompt, 9, sampling))
        for prompt, sampling in zip(prompts, settings, strict=True)
    ]
    run(server)
    for one, prompt, sampling in zip(sequences, prompts, settings, strict=True):
        assert one.new == generate(decoder, prompt[None], 9, sampling)[0].tolist()


def test_what_a_model_cannot_serve_is_refused_when_it_is_submitted() -> None:
    decoder = lean(transformers_model("llama"), "bf16")
    server = EngineServer(decoder)
    for prompt, new, words in (
        (torch.zeros(250, dtype=torch.int64), 7, "250 prompt and 7 new tokens exceed the model's"),
        (torch.zeros(2, dtype=torch.int64), 0, "max_new_tokens must be 1 or more"),
        (torch.zeros(0, dtype=torch.int64), 3, "the prompt must be ids"),
    ):
        with pytest.raises(BadInput, match=words):
            server.submit(Request(prompt, new))
    assert server.phase == ""


@pytest.mark.parametrize("noise", [0.0, 0.02, 1.0])
@pytest.mark.parametrize(("batch", "length", "tokens"), [(2, 1, 1), (3, 7, 3), (5, 13, 4)])
def test_greedy_speculation_says_for_every_row_what_the_target_says_alone(
    batch: int, length: int, tokens: int, noise: float
) -> None:
    target, draft = noisy("llama", "fp32", noise)
    prompts = torch.randint(0, 97, (batch, length))
    result = speculate(target, draft, prompts, 23, tokens)
    assert torch.equal(result.ids, generate(target, prompts, 23))
    stats = result.stats
    assert stats.accepted <= stats.proposed
    assert stats.verified_tokens == batch * 22
    if noise == 0:
        assert stats.accepted == stats.proposed
    if noise == 0.02:
        # Rows accept different numbers: they end apart.
        assert len({one.finished_at for one in result.sequences}) > 1


@pytest.mark.parametrize("family", ["qwen3", "mistral"])
def test_a_batch_of_codes_or_of_a_window_speculates_as_well(family: str) -> None:
    target, draft = noisy(family, "fp32", 0.02)
    if family == "qwen3":
        target.cache_format = KVFormat(4, 32, 4)
    prompts = torch.randint(0, 97, (3, 41))
    plain = torch.cat([generate(target, prompt[None], 50) for prompt in prompts])
    assert torch.equal(speculate(target, draft, prompts, 50, 3).ids, plain)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_rows_of_a_transformers_model_go_on_alone_once_they_part(family: str) -> None:
    model = transformers_model(family)
    target, (_, draft) = TransformersEngine(model), noisy(family, "fp32", 0.02)
    prompts = torch.randint(0, 97, (3, 9))
    result = speculate(target, draft, prompts, 19, 3)
    assert torch.equal(result.ids, generate(target, prompts, 19))
    assert result.stats.accepted > 0


def test_rows_of_a_batch_end_at_stops_of_their_own() -> None:
    target, draft = noisy("llama", "fp32", 0.02)
    prompts = torch.randint(0, 97, (4, 5))
    endless = generate(target, prompts, 20)
    stops = (int(endless[0, 2]), int(endless[2, 11]))
    want = generate(target, prompts, 20, stop_ids=stops)
    result = speculate(target, draft, prompts, 20, 3, stop_ids=stops)
    for row, one in enumerate(result.sequences):
        ends = [at for at, token in enumerate(endless[row].tolist()) if token in stops]
        assert one.new == endless[row, : (ends[0] + 1 if ends else 20)].tolist()
        assert one.new == want[row, : len(one.new)].tolist()


def test_requests_of_different_lengths_share_a_speculative_batch() -> None:
    target, draft = noisy("llama", "fp32", 0.02)
    prompts = torch.randint(0, 97, (3, 6))
    server = EngineServer(target, Static(3), Draft(draft, 4))
    sequences = [
        server.submit(Request(prompt, new)) for prompt, new in zip(prompts, (2, 17, 9), strict=True)
    ]
    run(server)
    for one, prompt in zip(sequences, prompts, strict=True):
        alone = generate(target, prompt[None], one.request.max_new_tokens)
        assert one.new == alone[0].tolist()


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize(
    "sampling", [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 3}, {"temperature": 1.3}]
)
def test_every_row_of_a_batch_is_distributed_like_the_targets_texts(
    sampling: dict[str, Any], batch: int
) -> None:
    target, draft = pair(4, 1.0)
    law = probabilities(target.logits, Sampling(**sampling)).double()
    texts = list(itertools.product(range(4), repeat=3))
    runs, prompts = 900, torch.arange(batch)[:, None]
    counts = torch.zeros(batch, len(texts))
    for number in range(runs):
        seeds = range(number * batch, (number + 1) * batch)
        result = speculate(target, draft, prompts, 3, 2, Sampling(**sampling), seeds=seeds)
        for row, text in enumerate(result.ids.tolist()):
            counts[row, texts.index(tuple(text))] += 1
    for row in range(batch):
        expected = torch.tensor([law[row, a] * law[a, b] * law[b, c] for a, b, c in texts])
        possible = expected > 0
        assert float(counts[row, ~possible].sum()) == 0
        likely = possible & (expected * runs > 4)
        seen = [*counts[row, likely].tolist(), float(counts[row, ~likely].sum())]
        wanted = [*expected[likely].tolist(), max(1e-12, float(expected[~likely].sum()))]
        total = sum(wanted)
        if wanted[-1] < 1e-9:
            seen, wanted = seen[:-1], wanted[:-1]
        assert chisquare(seen, [runs * share / total for share in wanted]).pvalue > 1e-3


def test_a_done_row_keeps_the_others_company_at_any_length() -> None:
    target, draft = pair(6, 0.3)
    one_long = TableModel(target.logits)
    prompts = torch.tensor([[1], [2]])
    server = EngineServer(one_long, Static(2), Draft(draft, 5))
    short: Sequence = server.submit(Request(prompts[0], 1))
    long: Sequence = server.submit(Request(prompts[1], 40))
    run(server)
    assert len(short.new) == 1
    assert long.new == generate(one_long, prompts[1:], 40)[0].tolist()
