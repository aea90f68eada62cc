"""Requests that arrive on their own, on a clock that only work and waiting move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core.data.arrivals import Arrival, arrivals
from core.engine.load.load import random_engine
from core.engine.serve.proposer import Draft
from core.engine.serve.scheduler import Static
from core.engine.serve.sequence import Request
from core.engine.serve.server import EngineServer
from core.engine.serve.serving import Serving
from core.files.config.decoder_config import DecoderConfig
from core.measure import traffic
from core.measure.serve import Service
from core.measure.sweep import CONCURRENCY, prompt_lengths, under_concurrency, under_lengths
from core.measurement import Measurement
from core.model import DecoderShape, Model
from core.plan import Case
from core.target import Target
from core.techniques.deployment import Deployment
from core.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")
CHAT = Workload("chat", "Chat", "text", 8, 5)


class Clock:
    """Time that passes when somebody sleeps or serves."""

    now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("time.perf_counter", found)
    monkeypatch.setattr("time.sleep", found.sleep)
    return found


class Steady:
    """An engine that takes `first` seconds for any prompts and `each` for every further token."""

    device = "cpu"
    vocab_size = 2
    max_positions = 1 << 20

    def __init__(self, clock: Clock, first: float, each: float) -> None:
        self.clock = clock
        self.first = first
        self.each = each

    def new_cache(self, batch: int, capacity: int) -> None:
        return None

    def forward(self, ids: torch.Tensor, cache: None, last_only: bool) -> torch.Tensor:
        self.clock.now += self.first if ids.shape[1] > 1 else self.each
        return torch.zeros(len(ids), 1, 2)

    def choose(self, ids: torch.Tensor, cache: None, last_only: bool) -> torch.Tensor:
        return self.forward(ids, cache, last_only).argmax(-1)


def served(
    clock: Clock, batch: int, asked: tuple[Arrival, ...], first: float, each: float
) -> list[traffic.Served]:
    """What traffic.serve tells of `asked` on a steady engine behind a real server."""
    engine: Any = Steady(clock, first, each)
    requests = [
        Request(torch.zeros(one.prompt_tokens, dtype=torch.int64), one.output_tokens)
        for one in asked
    ]
    return traffic.serve(EngineServer(engine, Static(batch)), asked, requests)


def test_a_request_waits_for_the_one_before_it(clock: Clock) -> None:
    asked = (Arrival(0.0, 8, 3), Arrival(1.0, 8, 3), Arrival(10.0, 8, 1))
    first, second, third = served(clock, 1, asked, 2.0, 0.5)
    assert (first.ttft, first.latency, first.tpot) == (2.0, 3.0, 0.5)
    assert (second.began, second.ttft, second.latency) == (3.0, 4.0, 5.0)
    assert (third.began, third.ttft, third.latency, third.tpot) == (10.0, 2.0, 2.0, None)


def test_a_batch_takes_those_that_wait_and_have_one_length(clock: Clock) -> None:
    asked = (
        Arrival(0.0, 8, 2),
        Arrival(0.1, 8, 5),
        Arrival(0.2, 4, 1),
        Arrival(0.3, 8, 2),
        Arrival(99.0, 8, 1),
    )
    done = served(clock, 2, asked, 1.0, 1.0)
    assert [one.together for one in done] == [1, 2, 2, 1, 1]
    by_arrival = {one.arrival: one for one in done}
    # The shorter one of a batch has its last token early, but the batch runs to the longest.
    assert by_arrival[asked[3]].last == by_arrival[asked[1]].began + 2
    assert by_arrival[asked[2]].began == by_arrival[asked[1]].last


def test_waiting_follows_pollaczek_and_khinchine(clock: Clock) -> None:
    service, load = 0.2, 0.6
    asked = arrivals(replace(CHAT, arrival_per_s=load / service, output_tokens=1), 20_000, 3)
    done = served(clock, 1, asked, service, 0.0)
    waits = np.mean([one.began - one.arrival.at_s for one in done])
    assert waits == pytest.approx(load * service / (2 * (1 - load)), rel=0.1)


def by_name(found: list[Measurement]) -> dict[str, Measurement]:
    return {one.metric: one for one in found}


def test_throughput_counts_to_the_last_token_and_limits_are_per_request(clock: Clock) -> None:
    workload = replace(CHAT, arrival_per_s=1.0, ttft_limit_s=2.5, tpot_limit_s=9.0)
    asked = tuple(Arrival(at, 8, 3) for at in (0.0, 1.0, 20.0))
    found = by_name(traffic.summarize(served(clock, 1, asked, 2.0, 0.5), workload, 1))
    assert found["tokens_per_s"].value == pytest.approx(9 / 23)
    assert found["within_limits"].samples == (1.0, 0.0, 1.0)
    assert found["ttft_s"].samples == (2.0, 4.0, 2.0)
    assert {str(one.condition) for one in found.values()} == {"rate=1/s"}
    assert found["latency_p95_s"].interval() is None
    assert "too few" in found["latency_p95_s"].method


def test_more_arrivals_than_can_be_served_are_said_to_be(clock: Clock) -> None:
    asked = tuple(Arrival(0.1 * n, 8, 1) for n in range(10))
    workload = replace(CHAT, arrival_per_s=10.0)
    found = traffic.summarize(served(clock, 1, asked, 1.0, 0.0), workload, 1)
    assert all("more arrives than this plan serves" in one.method for one in found)


TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
TEXT = Model("tiny", "llama", "folder", "r1", DecoderShape(32, 1, 2, 1, 16, 32, 61, 64))
CONFIG = DecoderConfig("llama", 61, 32, 1, 2, 1, 16, (32,), max_positions=64, tied_embeddings=True)


def deployed(**fields: object) -> Deployment:
    engine = random_engine(CONFIG, "fp32", 1)
    return Deployment(Case(TEXT, TARGET, CHAT), engine, lambda: engine, **fields)  # type: ignore[arg-type]


def prompts(count: int, length: int) -> torch.Tensor:
    return torch.zeros(count, length, dtype=torch.int64)


@pytest.mark.parametrize("draft", [False, True])
def test_a_real_engine_serves_what_arrives(draft: bool) -> None:
    proposer = Draft(random_engine(CONFIG, "fp32", 1), 2) if draft else None
    deployment = deployed(serving=Serving(Static(4), proposer))
    workload = replace(CHAT, trace="x", trace_digest="a" * 64)
    asked = (Arrival(0.0, 8, 5), Arrival(0.0, 3, 1), Arrival(0.001, 8, 2))
    found = by_name(traffic.measure_traffic(deployment, workload, asked, prompts))
    assert found["ttft_s"].n == found["latency_s"].n == 3
    assert found["tpot_s"].n == 2
    assert str(found["ttft_s"].condition) == "trace=aaaaaaaa"
    assert min(found["latency_s"].samples) > 0


@pytest.mark.parametrize(
    ("prompt", "context", "lengths"),
    [(128, 1024, (32, 64, 256, 512)), (8, 64, (2, 4, 16, 32)), (1, 6, ()), (8, 21, (2, 4, 16))],
)
def test_prompt_lengths_leave_room_for_the_output(
    prompt: int, context: int, lengths: tuple[int, ...]
) -> None:
    assert prompt_lengths(replace(CHAT, prompt_tokens=prompt), context) == lengths


def test_a_sweep_measures_each_condition_and_names_it() -> None:
    deployment = deployed(serving=Serving(Static(4)))
    asked: list[tuple[int, int]] = []

    def serve(workload: Workload) -> Service:
        asked.append((workload.concurrency, workload.prompt_tokens))
        return Service(deployment, workload, prompts(workload.concurrency, workload.prompt_tokens))

    found = under_lengths(serve, CHAT, 64, 3) + under_concurrency(serve, CHAT, CONCURRENCY, 3)
    assert asked == [(1, 2), (1, 4), (1, 16), (1, 32), (2, 8), (4, 8), (8, 8), (16, 8)]
    conditions = {(one.metric, str(one.condition)): one.n for one in found}
    assert conditions[("ttft_s", "prompt_tokens=16")] == 3
    # Eight requests in groups of four are two samples a round.
    assert conditions[("latency_s", "concurrency=8")] == 6
    assert ("ttft_s", "concurrency=8") not in conditions
