"""Predictions: wide enough for what was measured, honest about what is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core import techniques
from core.catalogue import models, workloads
from core.journal import codec
from core.machine import targets
from core.machine.calibrate import Calibration
from core.measurement import Measurement
from core.model import ClassifierShape
from core.plan import Case, Plan
from core.predict import predict
from core.predict.limits import limits
from core.study import Study
from core.target import Target

MEASURED_MACHINE = Calibration(
    "env", "2026-11-21T10:00:00.000", "cpu", 26.5e9, (("bf16", 2.0e12), ("int8", 3.0e12))
)


def plan(model: str, target: str | Target, text: str = "", workload: str = "chat") -> Plan:
    where = targets.resolve(target) if isinstance(target, str) else target
    case = Case(models.resolve(model), where, workloads.resolve(workload))
    return Plan(case, tuple(techniques.parse(part) for part in text.split()))


def numbers(one: Plan, calibration: Calibration | None = None) -> dict[str, Measurement]:
    return {found.metric: found for found in predict(one, calibration)}


@pytest.mark.parametrize(
    ("text", "tokens_per_s"),
    [("", 20.0), ("", 31.0), ("", 56.0), ("weight-int8", 53.0), ("weight-int8", 86.0),
     ("weight-int4", 94.0), ("weight-int4", 182.0)],
)  # fmt: skip
def test_the_interval_holds_what_programs_reached_on_a_known_machine(
    text: str, tokens_per_s: float
) -> None:
    """SmolLM2-135M's decode rates by three programs on a machine of 26.5 GB/s and 2 TFLOP/s."""
    found = numbers(plan("shape:smollm2-135m", "local", text), MEASURED_MACHINE)["tpot_s"]
    low, high = found.bounds or (0, 0)
    assert low <= 1 / tokens_per_s <= high
    assert high / low < 12


@pytest.mark.parametrize(("text", "seconds"), [("", 128 / 1620), ("weight-int4", 128 / 934)])
def test_the_interval_holds_what_prompts_took(text: str, seconds: float) -> None:
    found = numbers(plan("shape:smollm2-135m", "local", text), MEASURED_MACHINE)["ttft_s"]
    low, high = found.bounds or (0, 0)
    assert low <= seconds <= high


def test_here_is_estimated_and_elsewhere_is_projected() -> None:
    assert {one.origin for one in predict(plan("shape:llama-3.2-1b", "h100-sxm"))} == {"projected"}
    local = predict(plan("shape:llama-3.2-1b", "local"))
    assert {one.origin for one in local} == {"estimated", "unavailable"}


def test_every_prediction_has_bounds_around_its_value_and_a_method() -> None:
    for target in targets.list_targets():
        for model in ("shape:qwen2.5-0.5b", "shape:llama-3.1-8b"):
            for one in predict(plan(model, target, "weight-int4 static-batch:size=4")):
                assert one.method
                assert codec.loads(codec.dumps(one)) == one
                if one.value is None:
                    assert one.origin == "unavailable"
                    continue
                low, high = one.bounds or (1, 0)
                assert 0 <= low <= one.value <= high, (target.id, one)
                assert one.n == 0


def test_cost_is_the_rent_over_the_throughput() -> None:
    found = numbers(plan("shape:llama-3.1-8b", "h100-sxm"))
    rate = found["tokens_per_s"].bounds or (0, 0)
    dollars = found["usd_per_mtok"].bounds or (0, 0)
    assert dollars[0] == pytest.approx(6.88 / 3600 / rate[1] * 1e6)
    assert dollars[1] == pytest.approx(6.88 / 3600 / rate[0] * 1e6)


def test_energy_is_stated_power_and_says_so() -> None:
    found = numbers(plan("shape:llama-3.1-8b", "h100-sxm"))
    rate = found["tokens_per_s"].bounds or (0, 0)
    joules = found["energy_j_per_token"]
    assert joules.bounds == (pytest.approx(210 / rate[1]), pytest.approx(700 / rate[0]))
    assert "700 W stated" in joules.method


def test_what_nobody_states_is_unavailable_with_the_reason() -> None:
    found = numbers(plan("shape:llama-3.2-1b", "apple-m4"))
    assert "power of apple-m4 is not stated" in found["energy_j_per_token"].method
    assert "no stated price" in found["usd_per_mtok"].method
    bare = replace(targets.resolve("l4"), peaks=())
    found = numbers(plan("shape:llama-3.2-1b", bare))
    assert found["tpot_s"].value is not None
    assert found["ttft_s"].value is None
    assert "peak of l4 is not known" in found["ttft_s"].method
    nothing = replace(bare, bandwidth=None)
    assert (
        "bandwidth of l4 is not known"
        in numbers(plan("shape:llama-3.2-1b", nothing))["tpot_s"].method
    )


def test_quality_is_never_predicted() -> None:
    assert not {"perplexity", "kl_nats", "accuracy", "top1_agreement"} & set(
        numbers(plan("shape:llama-3.2-1b", "l4", "weight-int4"))
    )


def test_speculation_widens_by_what_may_be_accepted() -> None:
    plain = numbers(plan("shape:llama-3.1-8b", "h100-sxm"))["tpot_s"].bounds or (0, 0)
    text = "speculative:tokens=4,draft=shape:smollm2-135m"
    found = numbers(plan("shape:llama-3.1-8b", "h100-sxm", text))["tpot_s"]
    low, high = found.bounds or (0, 0)
    assert low < plain[0] < plain[1] < high
    assert "1 to 5 tokens accepted a step" in found.method


def test_an_unknown_technique_is_named_and_widens(synthetic_study: Study) -> None:
    from core.techniques.base import Base

    class Magic(Base):
        name = "magic"
        kind = "cache"

    before = plan("shape:llama-3.2-1b", "l4")
    known = numbers(before)["tpot_s"]
    found = numbers(replace(before, techniques=(Magic(),)))["tpot_s"]  # type: ignore[arg-type]
    assert "the effect of magic is not known, so none is claimed" in found.method
    assert found.value == pytest.approx(known.value)
    assert found.bounds is not None
    assert known.bounds is not None
    assert found.bounds[0] == pytest.approx(known.bounds[0] / 4)
    assert found.bounds[1] == pytest.approx(known.bounds[1] * 4)


def test_a_calibration_replaces_the_stated_limits() -> None:
    here = plan("shape:llama-3.2-1b", "local")
    slow = replace(MEASURED_MACHINE, bandwidth=1e9)
    fast, late = numbers(here, MEASURED_MACHINE)["tpot_s"], numbers(here, slow)["tpot_s"]
    assert (late.value or 0) > 5 * (fast.value or 1)
    assert "measured here on 2026-11-21" in fast.method


def test_an_uncalibrated_machine_is_assumed_and_wider(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    here = plan("shape:llama-3.2-1b", "local")
    assumed = numbers(here)["tpot_s"]
    calibrated = numbers(here, MEASURED_MACHINE)["tpot_s"]
    assert "not calibrated" in assumed.method
    assert assumed.bounds is not None
    assert calibrated.bounds is not None
    assert assumed.bounds[1] / assumed.bounds[0] > calibrated.bounds[1] / calibrated.bounds[0]


def test_small_weights_may_be_faster_than_memory() -> None:
    card = targets.resolve("xeon-c7i-metal")
    small, large = limits(card, None, False, 1e6), limits(card, None, False, 1e9)
    assert small is not None
    assert large is not None
    assert small.best.bandwidth > large.best.bandwidth
    assert small.worst.bandwidth == large.worst.bandwidth


def test_images_are_predicted_with_their_calls(synthetic_study: Study) -> None:
    shape = ClassifierShape(
        parameters=9_000, macs=200_000, inputs=64, classes=10, activations=2_000
    )
    model = replace(synthetic_study.case.model, shape=shape)
    frames = replace(workloads.resolve("sensor-frame"), concurrency=8)
    case = Case(model, synthetic_study.case.target, frames)
    found = {one.metric: one for one in predict(Plan(case))}
    low, high = found["latency_p95_s"].bounds or (0, 0)
    assert 5e-6 < low < high < 0.01
    eight = {
        one.metric: one for one in predict(Plan(case, (techniques.parse("static-batch:size=8"),)))
    }
    assert (eight["examples_per_s"].value or 0) > (found["examples_per_s"].value or 0)
    assert found["model_bytes"].value == 36_000
