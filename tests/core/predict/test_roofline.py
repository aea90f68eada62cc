"""The roofline on cases small enough to work out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core import techniques
from core.machine import targets
from core.model import DecoderShape
from core.plan import Plan
from core.predict.limits import Rates
from core.predict.roofline import (
    MEMORY_BOUND,
    Span,
    UnknownPeak,
    decoder_times,
    prompt_seconds,
    seconds,
    step_seconds,
)
from core.predict.work import Load
from core.study import Study
from core.workload import Workload

# hidden 10, one layer, one head of 10, MLP 20, 100 tokens: 400 + 600 + 1,000 = 2,000 weights read.
SHAPE = DecoderShape(10, 1, 1, 1, 10, 20, 100, 1000)


def plan(
    study: Study, text: str = "", concurrency: int = 1, output: int = 5, shape: DecoderShape = SHAPE
) -> Plan:
    case = replace(
        study.case,
        model=replace(study.case.model, shape=shape),
        workload=Workload("w", "W", "text", 10, output, concurrency),
    )
    return Plan(case, tuple(techniques.parse(part) for part in text.split()))


def test_a_pass_takes_the_longer_of_moving_and_computing() -> None:
    load = Load(bytes=1000, flops=4000, rows=1)
    assert seconds(load, 0, Rates(1000, 1e9)) == 1.0
    assert seconds(load, 0, Rates(1e9, 1000)) == 4.0
    assert seconds(load, 3, Rates(1000, 1e9, 0.5)) == 2.5


def test_an_unknown_peak_is_only_harmless_where_memory_is_the_limit() -> None:
    assert seconds(Load(1000, 4000, 1), 0, Rates(1000, None)) == 1.0
    with pytest.raises(UnknownPeak):
        seconds(Load(1000, 9000, 1), 0, Rates(1000, None))


def test_decoding_is_bound_by_bytes(synthetic_study: Study) -> None:
    # 4,000 bytes of weights + 12 cached tokens of 20 values at 2 bytes = 4,480 bytes.
    assert step_seconds(plan(synthetic_study), Rates(4480, 1e12)) == pytest.approx(1.0)


def test_a_prompt_is_bound_by_flops_where_they_are_many(synthetic_study: Study) -> None:
    # 2 x 1,000 x 10 for the layer, 2 x 1,000 for the head, 2 x 10 x 10 x 11 for attention.
    assert prompt_seconds(plan(synthetic_study), Rates(1e12, 24_200)) == pytest.approx(1.0)


def test_the_times_of_one_request(synthetic_study: Study) -> None:
    times = decoder_times(plan(synthetic_study), Rates(1e12, 24_200), accepted=1.0)
    # A step is 2 x 2,000 + 4 x 10 x 13 FLOPs.
    each = 4520 / 24_200
    assert times["ttft_s"] == pytest.approx(1.0)
    assert times["tpot_s"] == pytest.approx(each)
    assert times["latency_p95_s"] == pytest.approx(1 + 4 * each)
    assert times["tokens_per_s"] == pytest.approx(5 / (1 + 4 * each))


def test_requests_beyond_one_group_wait(synthetic_study: Study) -> None:
    alone = decoder_times(plan(synthetic_study), Rates(1e6, 1e6), 1.0)
    four = decoder_times(plan(synthetic_study, concurrency=4), Rates(1e6, 1e6), 1.0)
    whole = alone["latency_p95_s"]
    assert four["tpot_s"] == alone["tpot_s"]
    assert four["ttft_s"] == pytest.approx(1.5 * whole + alone["ttft_s"])
    assert four["tokens_per_s"] == pytest.approx(alone["tokens_per_s"])
    assert four["latency_p95_s"] == pytest.approx(3.85 * whole)


def test_a_batch_shares_the_weights_until_compute_is_the_limit(synthetic_study: Study) -> None:
    slow_memory, fast_memory = Rates(1e3, 1e9), Rates(1e12, 1e3)
    one = decoder_times(plan(synthetic_study), slow_memory, 1.0)
    eight = decoder_times(
        plan(synthetic_study, "static-batch:size=8", concurrency=8), slow_memory, 1.0
    )
    assert 4 < eight["tokens_per_s"] / one["tokens_per_s"] < 8
    one = decoder_times(plan(synthetic_study), fast_memory, 1.0)
    eight = decoder_times(
        plan(synthetic_study, "static-batch:size=8", concurrency=8), fast_memory, 1.0
    )
    assert eight["tokens_per_s"] == pytest.approx(one["tokens_per_s"])


def test_int4_speeds_decoding_where_bytes_are_the_limit(synthetic_study: Study) -> None:
    # Large enough that the padding of packed layouts does not count.
    rates, shape = Rates(1e6, 1e15), DecoderShape(640, 2, 10, 10, 64, 1280, 1000, 1000)
    before = step_seconds(plan(synthetic_study, shape=shape), rates)
    after = step_seconds(plan(synthetic_study, "weight-int4", shape=shape), rates)
    # 16 bits against 4 + 16 / 32 + 8 / 32, and 11 cached tokens.
    assert before / after == pytest.approx(16 / 4.75, rel=0.02)


def test_speculation_pays_for_the_draft_and_gains_what_is_accepted(synthetic_study: Study) -> None:
    # An unknown draft counts as large as the model itself: k + 1 model steps in all.
    text = "speculative:tokens=3,draft=nobody/knows-this"
    rates = Rates(4480, 1e15)
    assert step_seconds(plan(synthetic_study, text), rates) == pytest.approx(4.0)
    times = decoder_times(plan(synthetic_study, text), rates, accepted=4.0)
    assert times["tpot_s"] == pytest.approx(1.0)


def test_without_a_peak_only_what_memory_limits_is_known(synthetic_study: Study) -> None:
    one = plan(synthetic_study)
    long = replace(one.case.workload, prompt_tokens=100)
    one = replace(one, case=replace(one.case, workload=long))
    assert set(decoder_times(one, Rates(1e6, None), 1.0)) == {"tpot_s"}
    big = plan(synthetic_study, "static-batch:size=64", concurrency=64)
    assert decoder_times(big, Rates(1e6, None), 1.0) == {}


def test_memory_is_the_limit_there_on_every_device_we_list() -> None:
    for target in targets.list_targets():
        peaks = dict(target.peaks)
        if not target.local and target.bandwidth is not None and peaks:
            rate = next(peaks[name] for name in ("bf16", "fp16", "fp32") if name in peaks)
            assert rate / target.bandwidth > MEMORY_BOUND, target.id


def test_one_output_token_has_no_decode_time_in_its_latency(synthetic_study: Study) -> None:
    times = decoder_times(plan(synthetic_study, output=1), Rates(1e6, 1e6), 1.0)
    assert times["latency_p95_s"] == times["ttft_s"]


def test_a_span_shows_its_geometric_middle() -> None:
    assert Span(1.0, 100.0).value == pytest.approx(10.0)
    assert Span(0.0, 10.0).value == 5.0
