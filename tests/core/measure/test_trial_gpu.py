"""A whole trial whose target is the local GPU, on one that is pretended: every technique is applied
to weights on the device, served, and judged there, and no tensor of the host comes between.
"""

from __future__ import annotations

import re
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.artefacts.prefix import Prefixes
from core.catalogue.models import shapes
from core.engine.load.load import load_engine, random_engine
from core.errors import Refused
from core.machine.calibrate import calibrate
from core.machine.calibration import bandwidth
from core.machine.calibration.record import Calibration
from core.measure.energy import Meter, powercap
from core.measure.steps.apply import apply
from core.measure.steps.context import Emit, TrialRun
from core.measure.steps.load import TINY, load
from core.plan import Plan
from core.planner.presets import PRESETS, Preset
from core.workload import Workload
from tests.core.measure.gpu_trials import SHORT, plan, run
from tests.core.pretended_gpu import pretended_gpu

pytestmark = pytest.mark.usefixtures("one_thread")

# Every technique that changes a language model, with settings that run its own code.
PLANS = (
    "",
    "weight-int4 kv-cache:bits=8 static-batch:size=3",
    "nf4",
    "fp8:activations=8",
    "w8a8",
    "gptq:samples=2",
)
SLOW_PLANS = (
    "weight-int8",
    "rtn:bits=3,group_size=64,symmetric=1",
    "rtn:granularity=tensor",
    "nf4:double=0",
    "fp4",
    "fp8:format=e5m2",
    "binary",
    "ternary",
    "k-quant",
    "w8a8:mode=static,percentile=99.9",
    "w8a8:smooth=0.8",
    "llm-int8",
    "gptq:samples=2,bits=3,symmetric=1,clean=0",
    "awq:samples=2",
    "awq:samples=2,then=gptq",
    "auto-mixed",
    "cast:dtype=fp16",
    "cast:dtype=fp32",
    "kv-cache:bits=4",
    "prune-mlp",
    "distill-soft:steps=1",
    "qat:steps=1",
    "lora:steps=1",
)
# Where a served token waits for the device: its id on the way to the host, and once a prompt's ids;
# torch's fallback for codes, in whose place a Triton kernel runs on a real one; and what binding a
# step of llm-int8 asks once.
READ = (
    "core/engine/serve/readback.py",
    "core/engine/passes/token_ids.py",
    "kernels/linear_lowbit/codes.py",
    "kernels/linear_w8a8/codes.py",
)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = Preset("quick", 1, 0.0, 2, 48, 1, 0.0, 60.0, gpu_warm_s=0.0)
    monkeypatch.setitem(PRESETS, "quick", brief)
    known = Calibration("env-1", "2026-11-30T12:00:00", "cuda", 4e12, (("bf16", 8e14),))
    monkeypatch.setattr("core.measure.steps.share.stored", lambda environment: known)


@pytest.mark.parametrize(
    "text", [*PLANS, *(pytest.param(text, marks=pytest.mark.slow) for text in SLOW_PLANS)]
)
def test_a_plan_is_applied_served_and_judged_on_the_device(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = replace(SHORT, concurrency=3) if "batch" in text else SHORT
    with pretended_gpu(monkeypatch) as waits:
        told = run(plan(text, workload=workload), waits)
    assert told.rows["tokens_per_s"].origin == "measured"
    assert told.value("perplexity") < 1000
    assert told.value("device_peak_bytes") == 10**8
    assert "of the host alone" in told.rows["peak_bytes"].method
    waited = [wait.split(" at ")[1] for wait in told.waits["serve"]]
    assert [place for place in waited if not place.startswith(READ)] == []


@pytest.mark.slow
def test_a_draft_proposes_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch) as waits:
        told = run(plan("speculative:tokens=2", "pycode"), waits)
    assert 1 <= told.value("accepted_per_step") <= 3
    assert told.value("kl_nats") == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("model", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize("text", ["", "w8a8", "w8a8:mode=static", "gptq:samples=2"])
def test_a_classifier_runs_on_the_device(
    model: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = Workload("sensor", "Sensor", "image", concurrency=2)
    with pretended_gpu(monkeypatch) as waits:
        told = run(plan(text, model, sensor), waits)
    assert told.value("accuracy") > 0.5


def test_a_shape_is_made_on_the_device_and_has_no_quality(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the numbers of one seed, and none of them on the host first."""
    name = next(iter(shapes()))
    small = {"num_hidden_layers": 1, "vocab_size": 512, "max_position_embeddings": 64}
    entry = shapes()[name]
    monkeypatch.setitem(shapes(), name, {**entry, "config": {**entry["config"], **small}})
    asked = plan("weight-int4", f"shape:{name}")
    with pretended_gpu(monkeypatch) as waits:
        told = run(asked, waits)
        first, second = (load_engine(f"shape:{name}", device="cuda") for _ in range(2))
        again, other = (random_engine(TINY, "bf16", seed, "cuda") for seed in (0, 1))
    assert told.rows["tokens_per_s"].origin == "measured"
    assert told.rows["perplexity"].origin == "unavailable"
    assert [wait for wait in told.waits["load"] if "core/engine/load" in wait] == []
    assert torch.equal(first.embedding, second.embedding)
    assert torch.equal(first.layers[0].qkv.weight, second.layers[0].qkv.weight)
    assert first.layers[0].qkv.weight.float().std() == pytest.approx(0.02, rel=0.02)
    assert not torch.equal(again.embedding, other.embedding)


def test_a_gpu_that_torch_cannot_use_is_refused_with_the_way_out() -> None:
    """This torch was built for the CPU, or there is no GPU here."""
    with pytest.raises(
        Refused, match=r"the driver shows a GPU that torch .* cannot use .*CUDA_VIS"
    ):
        run(plan(""))


def test_a_pretended_gpu_takes_no_tensor_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch) as waits:
        there = torch.ones(3, device="cuda")
        with pytest.raises(RuntimeError, match="add: tensors of two devices"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="a generator of the other device"):
            there.normal_(generator=torch.Generator())
        assert (there + 1).device.type == "cuda"
        assert float(there.sum()) == 3
        assert there.cpu().device.type == "cpu"
    assert waits == ["__float__ at a test", "cpu at a test"]


def test_a_kept_prefix_is_written_from_the_device_and_loaded_onto_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = plan("gptq:samples=2")
    with pretended_gpu(monkeypatch):
        made = prepared(asked, Prefixes(tmp_path, "t-1", "env-1", (1,)))
        loaded = prepared(asked, Prefixes(tmp_path, "t-2", "env-1"))
        ids = torch.arange(20, device="cuda")[None]
        logits = [run.deployment.engine.forward(ids) for run in (made, loaded)]
    assert made.prefix is None
    assert loaded.prefix is not None
    assert loaded.deployment.engine.device == "cuda:0"
    assert torch.equal(*logits)


def test_weights_that_a_disk_takes_longer_for_than_the_gpu_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.artefacts.prefix.BYTES_PER_S", 1.0)
    notes: list[str] = []
    kept = Prefixes(tmp_path, "t-1", "env-1", (1,))
    with pretended_gpu(monkeypatch):
        prepared(plan("weight-int8"), kept, lambda kind, **body: notes.append(body.get("text", "")))
    assert list(tmp_path.iterdir()) == []
    assert any("takes longer than the" in note for note in notes)


def prepared(asked: Plan, prefixes: Prefixes, emit: Emit = lambda kind, **body: None) -> TrialRun:
    """A trial up to where its techniques are applied."""
    run = TrialRun(asked, PRESETS["quick"], "env-1", emit, prefixes=prefixes)
    load(run)
    apply(run)
    return run


class Card(types.ModuleType):
    """The module pynvml of a card that counts 400 W, every two milliseconds."""

    class NVMLError(Exception):
        """As pynvml's."""

    class NVMLError_NotSupported(NVMLError):
        """As pynvml's."""

    def nvmlInit(self) -> None:
        """As pynvml's."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return int(time.perf_counter() / 0.002) * 800


def test_joules_a_token_are_those_above_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    def idle(meter: Meter, seconds: float = 1.0) -> None:
        meter.idle_watts, meter.idle_seconds = 100.0, 1.0

    monkeypatch.setitem(sys.modules, "pynvml", Card("pynvml"))
    monkeypatch.setattr(Meter, "measure_idle", idle)
    monkeypatch.setattr(powercap, "find", lambda: (None, "no counters here"))
    brief = Preset("quick", 6, 1.0, 2, 48, 1, 0.0, 60.0, gpu_warm_s=0.0)
    monkeypatch.setitem(PRESETS, "quick", brief)
    with pretended_gpu(monkeypatch) as waits:
        told = run(plan("", workload=replace(SHORT, output_tokens=24)), waits)
    joules = told.rows["energy_j_per_token"]
    assert joules.origin == "measured"
    assert "NVML energy counter" in joules.method
    # The card counts in steps of time, and rounds end between two of them.
    watts = re.search(r"(\d+) W while serving", joules.method)
    assert watts is not None
    assert float(watts[1]) == pytest.approx(400, rel=0.15)
    assert joules.value == pytest.approx(300 / told.value("tokens_per_s"), rel=0.3)
    assert told.rows["energy_decode_j_per_token"].origin == "measured"


def test_a_gpu_is_calibrated(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr("core.machine.calibration.bandwidth.CUDA_SIZES", (1 << 16, 1 << 20))
    monkeypatch.setitem(bandwidth.SAMPLE_OF, "cuda", 1 << 20)
    monkeypatch.setattr("core.machine.calibration.compute.CUDA_SHAPES", ((32, 32, 32),))
    monkeypatch.setattr("core.machine.calibration.compute.CUDA_SAMPLE_S", 1e-5)
    with pretended_gpu(monkeypatch):
        known = calibrate(0.3, "cuda")
    assert known.device == "cuda"
    assert known.bandwidth > 0
    assert {"fp32", "tf32", "bf16", "fp16", "int8"} <= dict(known.peaks).keys()
    assert known.read_bandwidth(1e9)
    assert {rate.format for rate in known.of("overhead")} >= {"torch operation", "launch and wait"}
