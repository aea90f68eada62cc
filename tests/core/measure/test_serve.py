"""Serving: what is counted, on engines that answer at once and a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.engine.load.load import random_engine
from core.engine.serve.proposer import Draft
from core.engine.serve.scheduler import Static
from core.engine.serve.serving import Serving
from core.files.config.decoder_config import DecoderConfig
from core.machine.watch import Quiet
from core.measure import serve
from core.measure.energy import Book, Meter, energy
from core.measure.energy.reader import Lap
from core.measure.serve import Round, Service
from core.measurement import Measurement
from core.model import ClassifierShape, DecoderShape, Model
from core.plan import Case
from core.planner.presets import Preset
from core.target import Target
from core.techniques.deployment import Deployment
from core.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = Preset("short", 6, 0.001, 1, 8, 1, 0.0, 60.0)
CHAT = Workload("chat", "Chat", "text", 9, 6)
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
TEXT = Model("tiny", "llama", "folder", "r1", DecoderShape(32, 1, 2, 1, 16, 32, 61, 64))
IMAGES = Model("img", "image-classifier", "folder", "r1", ClassifierShape(1, 1, 64, 10, 64))
CONFIG = DecoderConfig("llama", 61, 32, 1, 2, 1, 16, (32,), max_positions=64, tied_embeddings=True)


def deployed(batch: int = 1, proposer: Draft | None = None, **fields: Any) -> Deployment:
    engine = random_engine(CONFIG, "fp32", 1)
    serving = Serving(Static(batch), proposer)
    return Deployment(Case(TEXT, TARGET, CHAT), engine, lambda: engine, serving=serving, **fields)


def one_round(
    deployment: Deployment, requests: torch.Tensor, new_tokens: int, book: Book | None = None
) -> Round:
    workload = replace(CHAT, output_tokens=new_tokens)
    return Service(deployment, workload, requests).round(book)


def prompts(requests: int) -> torch.Tensor:
    return torch.randint(0, 61, (requests, 9), generator=torch.Generator().manual_seed(1))


def measure_serving(
    deployment: Deployment,
    workload: Workload,
    preset: Preset,
    requests: torch.Tensor,
    **named: Any,
) -> list[Measurement]:
    return serve.measure_serving(Service(deployment, workload, requests), preset, **named)


def by_name(found: list[Measurement]) -> dict[str, Measurement]:
    assert len({one.metric for one in found}) == len(found)
    return {one.metric: one for one in found}


@dataclass
class Clock:
    """A clock that stands still until something takes time."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("time.perf_counter", found)
    monkeypatch.setattr(serve, "settle", lambda most: Quiet(0.0, 0.0))
    return found


def slow(deployment: Deployment, clock: Clock, prefill: float, step: float) -> None:
    """Make the engine take `prefill` seconds to read a prompt and `step` for each step after."""
    forward = deployment.engine.forward

    def taking(ids: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        clock.now += prefill if ids.shape[1] > 1 else step
        found: torch.Tensor = forward(ids, *arguments, **named)
        return found

    deployment.engine.forward = taking


def test_times_follow_their_definitions(clock: Clock) -> None:
    deployment = deployed(batch=4)
    slow(deployment, clock, 2.0, 0.25)
    one = one_round(deployment, prompts(4), 6)
    assert one.ttft == (2.0,)
    assert one.tpot == (0.25,)
    assert one.latency == (3.25,)
    assert one.seconds == 3.25
    assert (one.steps, one.emitted) == (0, 0)


def test_waiting_for_the_groups_before_is_part_of_a_requests_time(clock: Clock) -> None:
    deployment = deployed(batch=2)
    slow(deployment, clock, 2.0, 0.25)
    one = one_round(deployment, prompts(5), 6)
    assert one.ttft == (2.0, 5.25, 8.5)
    assert one.latency == (3.25, 6.5, 9.75)
    assert one.seconds == 9.75


def test_one_new_token_has_no_time_per_token(clock: Clock) -> None:
    deployment = deployed()
    slow(deployment, clock, 2.0, 0.25)
    one = one_round(deployment, prompts(1), 1)
    assert (one.ttft, one.tpot, one.latency) == ((2.0,), (), (2.0,))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_group_is_one_sample_however_many_requests_share_its_clock(batch: int) -> None:
    found = by_name(measure_serving(deployed(batch), CHAT, SHORT, prompts(4)))
    rounds = found["tokens_per_s"].n
    for name in ("ttft_s", "tpot_s", "latency_p95_s"):
        assert found[name].n == rounds * 4 // batch
    assert "4 requests a round in groups of" in found["ttft_s"].method
    assert f"{rounds} rounds after" in found["ttft_s"].method


def test_throughput_counts_new_tokens_of_all_requests_over_the_whole_round() -> None:
    rounds = [Round(2.0, (0.5,), (0.1,), (2.0,)), Round(4.0, (0.5,), (0.1,), (4.0,))]
    found = by_name(serve.times(rounds, Service(deployed(4), CHAT, prompts(4)), "how"))
    assert found["tokens_per_s"].samples == (12.0, 6.0)
    assert found["tokens_per_s"].value == 9.0
    assert set(found) == {"ttft_s", "tpot_s", "tokens_per_s", "latency_s", "latency_p95_s"}


def test_every_metric_of_text_is_measured_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "find_meter", lambda *_: Meter((), "no energy counter here"))
    shares: list[float] = []
    deployment = deployed(report=shares.append)
    found = by_name(measure_serving(deployment, CHAT, SHORT, prompts(1)))
    assert set(found) == {
        "ttft_s",
        "tpot_s",
        "tokens_per_s",
        "latency_s",
        "latency_p95_s",
        "cpu_wait_share",
        "energy_j_per_token",
        "energy_prefill_j_per_token",
        "energy_decode_j_per_token",
    }
    assert found["energy_j_per_token"].method == "no energy counter here"
    assert found["energy_j_per_token"].value is None
    assert all(found[name].n >= 5 for name in ("ttft_s", "tpot_s", "tokens_per_s"))
    assert shares[-1] == 1.0


@pytest.mark.parametrize(("q", "enough"), [(0.95, 72), (0.99, 368)])
def test_a_tail_is_numpys_and_has_an_interval_only_with_enough_samples(
    q: float, enough: int
) -> None:
    samples = tuple(np.random.default_rng(3).lognormal(size=enough).tolist())
    found = serve.tail("latency_p95_s", samples, q, "how", "timed groups")
    assert found.value == np.quantile(samples, q)
    assert found.bounds is not None
    assert found.bounds[0] <= found.value <= found.bounds[1] <= max(samples)
    few = serve.tail("latency_p95_s", samples[:-1], q, "how", "timed groups")
    assert few.interval() is None
    assert f"{enough - 1} timed groups are too few" in few.method


def test_a_p99_is_stated_from_a_hundred_requests_on() -> None:
    rounds = [Round(1.0, (0.1,), (0.1,), (float(i),)) for i in range(100)]
    served = Service(deployed(), CHAT, prompts(1))
    assert "latency_p99_s" in by_name(serve.times(rounds, served, "how"))
    assert "latency_p99_s" not in by_name(serve.times(rounds[1:], served, "how"))


def test_the_baseline_takes_turns_and_its_samples_are_the_reference(clock: Clock) -> None:
    ours, theirs = deployed(), deployed()
    slow(ours, clock, 1.0, 0.5)
    slow(theirs, clock, 2.0, 0.25)
    order: list[str] = []

    def other() -> Service:
        order.append("loaded")
        return Service(theirs, CHAT, prompts(1))

    found = by_name(measure_serving(ours, CHAT, SHORT, prompts(1), baseline=other))
    assert order == ["loaded"]
    assert found["ttft_s"].reference == (2.0,) * found["ttft_s"].n
    assert found["tpot_s"].samples == (0.5,) * 6
    assert found["tpot_s"].reference == (0.25,) * 6
    assert found["tokens_per_s"].reference == pytest.approx((6 / 3.25,) * 6)
    assert "in turns with the unchanged model" in found["tpot_s"].method
    assert found["cpu_wait_share"].reference == ()


def test_only_our_own_kernels_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels import calls

    def counting(name: str) -> Deployment:
        deployment = deployed()
        forward = deployment.engine.forward

        def counted(*arguments: Any, **named: Any) -> torch.Tensor:
            calls.count("test", name)
            found: torch.Tensor = forward(*arguments, **named)
            return found

        deployment.engine.forward = counted
        return deployment

    calls.reset()
    theirs = Service(counting("theirs"), CHAT, prompts(1))
    measure_serving(counting("ours"), CHAT, SHORT, prompts(1), baseline=lambda: theirs)
    names = {one["name"]: one["calls"] for one in calls.snapshot() if one["op"] == "test"}
    assert set(names) == {"ours"}
    assert names["ours"] >= (6 + 6) * CHAT.output_tokens


def test_a_group_count_that_differs_gives_no_pairs(clock: Clock) -> None:
    ours, theirs = deployed(batch=4), deployed()
    slow(ours, clock, 1.0, 0.5)
    slow(theirs, clock, 1.0, 0.5)
    other = Service(theirs, CHAT, prompts(4))
    found = by_name(measure_serving(ours, CHAT, SHORT, prompts(4), baseline=lambda: other))
    assert found["ttft_s"].reference == ()
    assert len(found["tokens_per_s"].reference) == found["tokens_per_s"].n


def test_rounds_without_a_core_are_marked_and_kept(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = iter(np.cumsum([0.0, 0.0] * 4 + [0.0, 0.5] + [0.0, 0.0] * 9).tolist())
    monkeypatch.setattr(serve, "waited_seconds", lambda: next(waits))
    deployment = deployed()
    slow(deployment, clock, 1.0, 0.25)
    found = by_name(measure_serving(deployment, CHAT, SHORT, prompts(1)))
    assert found["cpu_wait_share"].samples == pytest.approx((0, 0, 0, 0, 0.5 / 2.25, 0))
    assert "1 of 6 rounds disturbed" in found["cpu_wait_share"].method
    assert found["ttft_s"].n == 6


def test_waiting_is_unavailable_where_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "waited_seconds", lambda: None)
    found = by_name(measure_serving(deployed(), CHAT, SHORT, prompts(1)))
    assert found["cpu_wait_share"].origin == "unavailable"


def test_accepted_tokens_are_those_of_verification_steps_alone() -> None:
    deployment = deployed(proposer=Draft(random_engine(CONFIG, "fp32", 1), 2))
    one = one_round(deployment, prompts(3), 7)
    # The draft is the model itself: after the prompt, 6 tokens are 2 steps of 3.
    assert one.steps == 3 * 2
    assert one.emitted == 3 * 6
    found = by_name(measure_serving(deployment, replace(CHAT, output_tokens=7), SHORT, prompts(1)))
    assert found["accepted_per_step"].value == 3.0


def test_a_draft_that_verified_nothing_has_no_accepted_tokens() -> None:
    deployment = deployed(proposer=Draft(random_engine(CONFIG, "fp32", 1), 2))
    found = by_name(measure_serving(deployment, replace(CHAT, output_tokens=1), SHORT, prompts(1)))
    assert found["accepted_per_step"].value is None
    assert "tpot_s" not in found


class TenWatts:
    """A counter that advances by ten joules a second of the tests' clock."""

    name = "ten watts"
    resolution_s = 1e-9
    origin = "measured"
    spread = (1.0, 1.0)
    draws_idle = False

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.at = 0.0

    def start(self) -> None:
        self.at = self.clock.now

    def lap(self) -> Lap:
        lap = Lap(self.clock.now - self.at, (("package-0", 10 * (self.clock.now - self.at)),))
        self.start()
        return lap


def test_energy_of_prefill_and_decode_is_that_of_their_time(clock: Clock) -> None:
    deployment = deployed(batch=2)
    slow(deployment, clock, 2.0, 0.25)
    book = serve._book(Meter((TenWatts(clock),)), Service(deployment, CHAT, prompts(4)))
    for _ in range(3):
        with book.round():
            one_round(deployment, prompts(4), 6, book)
    found = by_name(energy(book, None, "how", True))
    # Two groups of 2 s and 5 x 0.25 s; 4 requests of 9 prompt and 6 new tokens, 5 of them decoded.
    assert found["energy_j_per_token"].samples == pytest.approx([65 / 24] * 3)
    assert found["energy_prefill_j_per_token"].samples == pytest.approx([40 / 36] * 3)
    assert found["energy_decode_j_per_token"].samples == pytest.approx([25 / 20] * 3)


def test_energy_of_every_timed_round_is_kept_in_turns_with_the_baselines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ticks(TenWatts):
        def lap(self) -> Lap:
            return Lap(1.0, (("package-0", 3.0),))

    monkeypatch.setattr(serve, "find_meter", lambda *_: Meter((Ticks(Clock()),)))
    other = Service(deployed(), CHAT, prompts(2))
    found = by_name(measure_serving(deployed(), CHAT, SHORT, prompts(2), baseline=lambda: other))
    whole = found["energy_j_per_token"]
    assert whole.n == found["tokens_per_s"].n
    assert len(whole.reference) == whole.n
    assert "in turns with the unchanged model" in whole.method
    assert "ten watts; 3 W while serving" in whole.method


def test_images_are_served_in_groups(clock: Clock) -> None:
    sizes: list[int] = []

    def classify(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        clock.now += 0.5
        return torch.zeros(len(images), 10)

    serving = Serving(Static(4))
    deployment = Deployment(Case(IMAGES, TARGET, CHAT), classify, lambda: classify, serving=serving)
    one = Service(deployment, CHAT, torch.zeros(10, 1, 8, 8)).round()
    assert sizes == [4, 4, 2]
    assert one.latency == (0.5, 1.0, 1.5)
    assert one.seconds == 1.5


def test_images_have_no_token_metrics() -> None:
    def classify(images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 10)

    deployment = Deployment(Case(IMAGES, TARGET, CHAT), classify, lambda: classify)
    found = by_name(measure_serving(deployment, CHAT, SHORT, torch.zeros(2, 1, 8, 8)))
    assert {"examples_per_s", "latency_s", "latency_p95_s", "energy_j_per_token"} < set(found)
    assert not {"ttft_s", "tpot_s", "tokens_per_s"} & set(found)


def test_the_clock_is_read_from_one_place(clock: Clock) -> None:
    # Guards the tests above: the server's own stamps must come from the clock that they move.
    read: Callable[[], float] = serve.time.perf_counter
    assert read() == clock.now
