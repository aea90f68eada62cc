"""MBU and MFU against hand-counted bytes and operations; unavailable where they are undefined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from core.engine.linear import Linear
from core.engine.load.load import random_engine
from core.engine.serve.proposer import Draft
from core.engine.serve.scheduler import Static
from core.engine.serve.serving import Serving
from core.files.config.decoder_config import DecoderConfig
from core.machine.calibration.record import Calibration, Rate
from core.machine.share import UNCALIBRATED, sentence, shares
from core.machine.work import work_of
from core.measurement import Measurement
from core.metrics import metric
from core.plan import Case, Plan
from core.study import Study
from core.techniques.batch.static import StaticBatch
from core.techniques.deployment import Deployment

MIB = 1 << 20
LAYERS, HIDDEN, WIDE, VOCABULARY, KV = 2, 64, 96, 128, 32
CONFIG = DecoderConfig(
    family="llama",
    vocab_size=VOCABULARY,
    hidden_size=HIDDEN,
    num_layers=LAYERS,
    num_heads=2,
    num_kv_heads=1,
    head_dim=32,
    intermediate_sizes=(WIDE,) * LAYERS,
    max_positions=256,
)
MATRICES = HIDDEN * (HIDDEN + 2 * KV) + HIDDEN * HIDDEN + 3 * HIDDEN * WIDE
NORMS = HIDDEN * (2 * LAYERS + 1)
TABLE = VOCABULARY * HIDDEN


def reading(*points: tuple[int, float]) -> tuple[Rate, ...]:
    """Reading rates of these sizes and bytes/s."""
    return tuple(Rate("read", "B/s", best, best, best, best, 5, size, 2) for size, best in points)


CALIBRATION = Calibration(
    "env", "2026-11-21T10:00:00.000", "cpu", 1e10, (("bf16", 1e12), ("fp32", 1e11)),
    reading((MIB, 2e10), (256 * MIB, 1e10)), 24.0, 0.0,
)  # fmt: skip


def timed(name: str, *samples: float) -> Measurement:
    return Measurement(name, samples, metric(name).unit, "measured", "timed")


@pytest.fixture
def plan(synthetic_study: Study) -> Plan:
    """A local chat of 100 + 20 tokens, one request at a time."""
    case = synthetic_study.case
    workload = replace(case.workload, prompt_tokens=100, output_tokens=20, concurrency=1)
    return Plan(Case(case.model, case.target, workload))


def deployed(plan: Plan, **changes: Any) -> Deployment:
    engine = random_engine(CONFIG)
    return Deployment(plan.case, engine, lambda: engine, **changes)


def found(
    plan: Plan, served: list[Measurement], calibration: Calibration | None, **changes: Any
) -> dict[str, Measurement]:
    made = shares(deployed(plan, **changes), plan, served, calibration)
    return {one.metric: one for one in made}


def test_a_tied_decoder_reads_its_table_once_and_its_cache(plan: Plan) -> None:
    work = work_of(random_engine(CONFIG), plan.case.model.decoder())
    assert work.weights == 2 * (LAYERS * MATRICES + NORMS + TABLE)
    assert work.kv == 2 * 2 * LAYERS * KV
    assert work.flops == 2 * LAYERS * MATRICES
    assert work.head == 2 * TABLE
    assert work.format == "bf16"


def test_a_head_of_its_own_is_read_and_the_embedding_only_looked_up(plan: Plan) -> None:
    engine = random_engine(CONFIG)
    engine.head = Linear.from_dense(engine.embedding, format="int8")
    work = work_of(engine, plan.case.model.decoder())
    assert work.weights == engine.weight_bytes() - 2 * TABLE
    assert engine.head.nbytes < work.weights


def test_pruned_matrices_count_as_they_are(plan: Plan) -> None:
    engine = random_engine(CONFIG)
    before = work_of(engine, plan.case.model.decoder())
    for layer in engine.layers:
        layer.gate_up = Linear(torch.zeros(2 * 64, HIDDEN, dtype=torch.bfloat16))
        layer.down = Linear(torch.zeros(HIDDEN, 64, dtype=torch.bfloat16))
    after = work_of(engine, plan.case.model.decoder())
    fewer = LAYERS * 3 * HIDDEN * (WIDE - 64)
    assert before.flops - after.flops == 2 * fewer
    assert before.weights - after.weights == 2 * fewer


def test_mbu_is_bytes_over_time_over_bandwidth(plan: Plan) -> None:
    # Everything fits below the smallest measured size: its 20 GB/s are the limit.
    bytes_ = 2 * (LAYERS * MATRICES + NORMS + TABLE) + 110 * 2 * 2 * LAYERS * KV
    mbu = found(plan, [timed("tpot_s", 1e-4, 2e-4)], CALIBRATION)["mbu"]
    assert mbu.samples == pytest.approx((bytes_ / 1e-4 / 2e10, bytes_ / 2e-4 / 2e10))
    assert mbu.origin == "measured"
    assert "memory-bound" in mbu.method
    assert "caches" in sentence(mbu)


def test_weights_beyond_the_caches_are_held_against_memory(plan: Plan) -> None:
    slow = replace(CALIBRATION, rates=reading((1024, 1e10), (2048, 1e10)))
    mbu = found(plan, [timed("tpot_s", 1e-4)], slow)["mbu"]
    assert mbu.value is not None
    assert "GB/s, at which" in mbu.method
    assert "the machine's memory can deliver" in sentence(mbu)


def test_a_batch_reads_the_weights_once_and_a_smaller_last_group_is_counted(plan: Plan) -> None:
    case = replace(plan.case, workload=replace(plan.case.workload, concurrency=5))
    batched = Plan(case, (StaticBatch(4),))
    requests = batched.case.workload.concurrency
    assert requests == 5
    weights, kv = 2 * (LAYERS * MATRICES + NORMS + TABLE), 110 * 2 * 2 * LAYERS * KV
    served = [timed("tpot_s", 1e-4, 1e-4, 1e-4, 1e-4), timed("ttft_s", 0.01, 0.05, 0.02, 0.06)]
    both = found(batched, served, CALIBRATION, serving=Serving(Static(4)))
    assert both["mbu"].samples == pytest.approx(
        [(weights + size * kv) / 1e-4 / 2e10 for size in (4, 1, 4, 1)]
    )
    # The second group of each round waited for the first: its time says nothing of the prompt.
    assert both["mfu"].n == 2
    assert both["mfu"].samples[0] == pytest.approx(2 * both["mfu"].samples[1])


def test_speculation_reads_the_draft_for_every_proposal_and_shares_it_among_the_accepted(
    plan: Plan,
) -> None:
    draft = random_engine(replace(CONFIG, num_layers=1, intermediate_sizes=(WIDE,)))
    drafted = Serving(proposer=Draft(draft, 4))
    one = work_of(draft, plan.case.model.decoder()).step_bytes(1, 110)
    own = work_of(random_engine(CONFIG), plan.case.model.decoder()).step_bytes(1, 110)
    served = [timed("tpot_s", 1e-4), timed("accepted_per_step", 2.0, 2.0, 2.0)]
    mbu = found(plan, served, CALIBRATION, serving=drafted)["mbu"]
    assert mbu.value == pytest.approx((own + 4 * one) / 2.0 / 1e-4 / 2e10)
    assert "4 draft passes" in mbu.method
    nothing = found(plan, served[:1], CALIBRATION, serving=drafted)["mbu"]
    assert nothing.origin == "unavailable"


def test_mfu_counts_the_head_once_and_attention_by_halves(plan: Plan) -> None:
    tokens = 100
    attention = 4 * LAYERS * 2 * 32 * tokens * (tokens + 1) / 2
    flops = tokens * 2 * LAYERS * MATRICES + attention + 2 * TABLE
    mfu = found(plan, [timed("ttft_s", 0.001, 0.002)], CALIBRATION)["mfu"]
    assert mfu.samples == pytest.approx((flops / 0.001 / 1e12, flops / 0.002 / 1e12))
    assert "in bf16" in mfu.method
    assert "matrix peak" in sentence(mfu)


def test_a_window_limits_what_is_attended_and_read(plan: Plan) -> None:
    work = work_of(random_engine(CONFIG), plan.case.model.decoder())
    narrow = replace(work, window=10)
    # The window counts the new token itself, which is in no cache yet.
    assert narrow.step_bytes(1, 110) == work.step_bytes(1, 9)
    pairs = sum(min(position + 1, 10) for position in range(100))
    plain = narrow.prompt_flops(1, 100) - 100 * work.flops - work.head
    assert plain == pytest.approx(work.attention * pairs)


def test_a_step_reads_the_experts_that_its_tokens_choose(plan: Plan) -> None:
    """Of 800 bytes of experts, a quarter of them a token's: 1 - 0.75^b of them for b tokens."""
    work = replace(
        work_of(random_engine(CONFIG), plan.case.model.decoder()), experts=800, used=0.25
    )
    assert work.step_bytes(1, 0) == work.weights - 600
    assert work.step_bytes(2, 0) == work.weights - 450
    assert work.step_bytes(100, 0) == pytest.approx(work.weights)


def test_without_limits_times_or_a_local_target_the_reason_is_said(plan: Plan) -> None:
    served = [timed("tpot_s", 1e-4), timed("ttft_s", 1e-3)]
    assert {one.method for one in found(plan, served, None).values()} == {UNCALIBRATED}
    far = Plan(replace(plan.case, target=replace(plan.case.target, id="h100", local=False)))
    assert all("h100 is not here" in one.method for one in found(far, served, CALIBRATION).values())
    assert found(plan, [], CALIBRATION)["mbu"].origin == "unavailable"
    assert found(plan, [], CALIBRATION)["mfu"].origin == "unavailable"
    bare = replace(CALIBRATION, peaks=(), rates=())
    both = found(plan, served, bare)
    assert "calibrate this machine again" in both["mbu"].method
    assert "no matrix peak of bf16" in both["mfu"].method
    assert sentence(both["mbu"]) == ""


def test_a_disturbed_calibration_is_said_in_the_method(plan: Plan) -> None:
    noisy = replace(CALIBRATION, others_cores=1.5)
    mbu = found(plan, [timed("tpot_s", 1e-4)], noisy)["mbu"]
    assert "while other processes took 1.5 cores" in mbu.method


def test_a_classifier_has_a_matrix_share_and_no_decoding() -> None:
    from core.catalogue import models, workloads
    from core.engine.classifier import DigitsMLP
    from core.machine import targets

    model = models.resolve("digits-mlp")
    case = Case(
        model, replace(targets.resolve("local"), local=True), workloads.resolve("sensor-frame")
    )
    engine = DigitsMLP([4])
    deployment = Deployment(case, engine, lambda: engine)
    made = shares(deployment, Plan(case), [timed("examples_per_s", 1e4, 2e4)], CALIBRATION)
    mbu, mfu = made
    assert mbu.origin == "unavailable"
    flops = model.example_flops()
    assert mfu.samples == pytest.approx((1e4 * flops / 1e11, 2e4 * flops / 1e11))


def test_small_shares_keep_a_digit() -> None:
    one = Measurement("mfu", (0.012,), "", "measured", "")
    assert sentence(one) == "Reading the prompt reaches 1.2 % of the machine's matrix peak."
