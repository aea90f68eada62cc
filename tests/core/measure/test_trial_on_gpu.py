"""Whole trials on a real GPU: what test_trial_gpu.py shows on a pretended one, with the kernels,
the graphs, the memory and the counters of a real one. Not yet run on a GPU.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from core.engine.allocator import free_on_gpu, give_back_on_gpu
from core.engine.load.load import load_engine, load_tokenizer, random_engine
from core.machine.calibrate import calibrate
from core.machine.calibration.record import Calibration
from core.measure.energy import nvml
from core.measure.memory.peak import device_round
from core.measure.quality.measure import measure_quality
from core.measure.steps.load import TINY
from core.plan import Plan
from core.planner.presets import PRESETS, Preset
from core.techniques.applying import apply_all
from core.techniques.deployment import Deployment
from kernels import registry
from tests.core.measure.gpu_trials import plan, run

pytestmark = pytest.mark.gpu
# The processor's answers come from torch alone: nothing is compiled for them.
PLAIN = (
    "linear_dense=torch,linear_lowbit=torch,linear_w8a8=torch-int-mm,linear_fp8=torch,"
    "rms_norm=torch,swiglu=torch,attention=torch-sdpa"
)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = Preset("quick", 3, 0.0, 2, 48, 1, 0.0, 60.0, gpu_warm_s=2.0)
    monkeypatch.setitem(PRESETS, "quick", brief)
    known = Calibration("env-1", "2026-11-30T12:00:00", "cuda", 4e12, (("bf16", 8e14),))
    monkeypatch.setattr("core.measure.steps.share.stored", lambda environment: known)


@pytest.mark.parametrize("text", ["", "weight-int4", "w8a8", "fp8:activations=8"])
def test_a_trial_says_what_the_processor_says(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = run(plan(text))
    assert told.rows["tokens_per_s"].origin == "measured"
    assert [note for note in told.notes if "could not be captured" in note] == []
    assert [note for note in told.notes if "without our kernels" in note] == []
    held = sum(told.parts[name].value or 0 for name in told.parts)
    assert told.value("memory_bytes") == pytest.approx(held)
    assert told.value("device_peak_bytes") >= told.value("model_bytes") + told.value("kv_bytes")
    with monkeypatch.context() as patch:
        patch.setenv(registry.ENVIRONMENT, PLAIN)
        registry.reset()
        expected = on_the_processor(plan(text))
    registry.reset()
    # Products are summed in another order, and inputs of 8 bit are rounded from other sums.
    assert told.value("perplexity") == pytest.approx(expected, rel=0.03)


def on_the_processor(asked: Plan) -> float:
    """The perplexity there."""
    model = asked.case.model
    tokenizer = load_tokenizer(model)
    deployment = Deployment(asked.case, load_engine(model), lambda: load_engine(model), tokenizer)
    apply_all(deployment, asked.techniques, lambda stage: lambda share: None)
    rows = measure_quality(deployment, PRESETS["quick"], deployment.prefix, unchanged=True)
    value = next(row.value for row in rows if row.metric == "perplexity")
    assert value is not None
    return value


def test_random_weights_are_those_of_their_seed() -> None:
    first, again, other = (random_engine(TINY, "bf16", seed, "cuda") for seed in (3, 3, 4))
    assert torch.equal(first.embedding, again.embedding)
    assert torch.equal(first.layers[0].down.weight, again.layers[0].down.weight)
    assert not torch.equal(first.embedding, other.embedding)
    assert first.device == "cuda:0"


def test_a_round_counts_what_it_held_at_most() -> None:
    give_back_on_gpu()
    before, free = torch.cuda.memory_allocated(), free_on_gpu()

    def work() -> None:
        torch.ones(64 << 20, dtype=torch.uint8, device="cuda")

    work()
    peak = device_round(work)
    assert peak.tensors - before == 64 << 20
    assert peak.captured >= 0
    assert peak.reserved >= peak.tensors
    assert peak.used > 0
    assert abs(free_on_gpu() - free) < 256 << 20


def test_limits_are_measured() -> None:
    known = calibrate(4.0, "cuda")
    assert known.bandwidth > 1e11
    assert known.read_bandwidth(1e9)
    assert {"fp32", "tf32", "bf16", "fp16", "int8"} <= dict(known.peaks).keys()
    assert known.peak("bf16") > known.peak("fp32")
    assert {rate.format for rate in known.of("overhead")} >= {"kernel in a graph"}


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="needs nvidia-ml-py")
def test_the_energy_counter_goes_on() -> None:
    reader, why = nvml.find()
    assert reader is not None, why
    if isinstance(reader, nvml.CountedReader):
        reader.watch()
        assert 0.001 < reader.resolution_s <= 0.2
    reader.start()
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(400):
        a @ a
    torch.cuda.synchronize()
    lap = reader.lap()
    assert 30 < lap.total / lap.seconds < 1500
