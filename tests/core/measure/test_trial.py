"""One trial in this process: what is counted as the model's memory, money, and quality."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.catalogue import models
from core.engine.load.load import load_engine, load_tokenizer
from core.files.special_ids import SpecialIds
from core.measure import trial
from core.measure.steps.context import TrialRun
from core.measure.steps.load import rehearse
from core.measure.steps.quality import quality
from core.measurement import Measurement
from core.plan import Case, Plan
from core.planner.presets import PRESETS, Preset
from core.target import Target
from core.techniques.batch.static import StaticBatch
from core.techniques.deployment import Deployment
from core.techniques.distill.soft_targets import SoftTargets
from core.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
SHORT = Workload("short", "Short", "text", 16, 4)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", Preset("quick", 3, 0.001, 3, 32, 1, 0.0, 60.0))


def run(plan: Plan) -> tuple[dict[str, Measurement], list[tuple[str, dict[str, Any]]]]:
    events: list[tuple[str, dict[str, Any]]] = []
    trial.run_trial(plan, "quick", "env-1", lambda kind, **body: events.append((kind, body)))
    sent = [body["measurement"] for kind, body in events if kind == "measurement"]
    assert len({(one.metric, one.condition) for one in sent}) == len(sent)
    return {one.metric: one for one in sent if not one.condition}, events


def case(model: str, workload: Workload = SHORT, target: Target = TARGET) -> Case:
    return Case(models.resolve(model), target, workload)


def test_a_batch_serves_as_many_requests_as_are_asked_for() -> None:
    several = case("pycode-small", replace(SHORT, concurrency=3))
    found, events = run(Plan(several, (StaticBatch(3),)))
    assert "3 requests a round in groups of 3" in found["tokens_per_s"].method
    assert found["concurrency"].value == 3
    assert all(one.environment == "env-1" for one in found.values())
    assert found["kl_nats"].value == pytest.approx(0.0, abs=1e-6)
    assert found["top1_agreement"].value == 1.0
    assert [kind for kind, _ in events].count("kernels") == 1


@pytest.mark.parametrize(
    ("model", "workload", "rate"),
    [
        ("pycode-small", SHORT, "tokens_per_s"),
        ("digits-mlp", Workload("sensor", "Sensor", "image"), "examples_per_s"),
    ],
)
def test_a_batch_that_never_fills_is_timed_apart(model: str, workload: Workload, rate: str) -> None:
    found, events = run(Plan(case(model, workload), (StaticBatch(3),)))
    assert "1 requests a round" in found[rate].method
    assert found["concurrency"].value == 1
    sent = [body["measurement"] for kind, body in events if kind == "measurement"]
    full = [one for one in sent if str(one.condition) == "concurrency=3"]
    assert {one.metric for one in full} == {rate, "latency_s"}
    assert all("3 requests a round in groups of 3" in one.method for one in full)
    notes = [body["text"] for kind, body in events if kind == "note"]
    assert any("batches of 3 never fill" in note for note in notes)


def test_the_price_is_the_rent_at_the_measured_throughput() -> None:
    rented = replace(TARGET, usd_per_hour=1.8)
    found, _ = run(Plan(case("pycode-small", target=rented)))
    rates, prices = found["tokens_per_s"].samples, found["usd_per_mtok"].samples
    assert prices == pytest.approx([1.8 / 3600 / rate * 1e6 for rate in rates])


def test_images_have_accuracy_and_no_price_per_token() -> None:
    sensor = Workload("sensor", "Sensor", "image", concurrency=2)
    found, _ = run(Plan(case("digits-mlp", sensor, replace(TARGET, usd_per_hour=1.0))))
    assert found["accuracy"].value == pytest.approx(0.98, abs=0.005)
    assert found["accuracy"].n == 450
    assert found["top1_agreement"].bounds == (1.0, 1.0)
    assert found["usd_per_mtok"].value is None
    assert found["model_bytes"].value == 6570 * 4
    # Groups of one image: the first layer's result and its ReLU, 64 values each.
    assert found["memory_bytes"].value == 6570 * 4 + 2 * 64 * 4
    assert found["disk_bytes"].value == sum(
        path.stat().st_size
        for path in (models.ZOO / "digits-mlp").iterdir()
        if path.suffix in (".safetensors", ".json") and path.name != "card.json"
    )
    assert "ttft_s" not in found


@pytest.mark.parametrize("prefix", [(7,), (0, 7), ()])
def test_a_text_begins_with_what_the_tokenizer_puts_before_it(prefix: tuple[int, ...]) -> None:
    class Engine:
        special_ids = SpecialIds(5, prefix=prefix)

    deployment = Deployment(case("pycode-small"), Engine(), Engine)
    assert deployment.prefix == prefix
    sensor = Workload("sensor", "Sensor", "image", concurrency=2)
    assert Deployment(case("digits-mlp", sensor), object(), object).prefix == ()


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_a_loaded_model_does_not_keep_its_file_mapped() -> None:
    engine = load_engine("pycode-small")
    mapped = Path("/proc/self/maps").read_text()
    assert "pycode-small/model.safetensors" not in mapped
    assert engine.weight_bytes() == 1_262_720 * 2


def test_rehearsing_runs_what_the_trial_will_run(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: steps.append(1))
    tokenizer, small = load_tokenizer("pycode-small"), models.resolve("pycode-small")
    rehearse(Plan(case("pycode-small")), tokenizer, small)
    assert steps == []
    rehearse(Plan(case("pycode-small"), (SoftTargets(steps=1),)), tokenizer, small)
    assert steps == [1]
    sensor = Workload("sensor", "Sensor", "image")
    rehearse(Plan(case("digits-cnn", sensor)), None, models.resolve("digits-cnn"))


class Silent:
    """An engine that nobody runs."""

    special_ids = SpecialIds()


def judged(plan: Plan) -> list[Measurement]:
    events: list[dict[str, Any]] = []
    run = TrialRun(plan, PRESETS["quick"], "env-1", lambda kind, **body: events.append(body))
    run.deployment = Deployment(plan.case, Silent(), object)
    quality(run)
    return [body["measurement"] for body in events if "measurement" in body]


def test_random_weights_have_no_quality_and_say_so() -> None:
    plan = Plan(Case(models.resolve("shape:smollm2-135m"), TARGET, SHORT))
    found = judged(plan)
    assert found
    assert all(one.value is None and "random weights" in one.method for one in found)


def test_text_without_a_tokenizer_has_no_quality_and_says_so() -> None:
    plan = Plan(case("pycode-small"))
    found = judged(plan)
    assert found
    assert all(one.value is None and "no tokenizer.json" in one.method for one in found)
