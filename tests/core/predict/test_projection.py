"""Measured here, projected there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core import techniques
from core.catalogue import models, workloads
from core.condition import read as read_condition
from core.machine import targets
from core.measurement import Measurement, unavailable
from core.metrics import BY_NAME
from core.model import ClassifierShape
from core.plan import Case, Plan
from core.predict import project
from core.predict.carried import place_quality
from core.study import Study, Trial
from core.target import Target

HERE = Target(
    "local", "This machine", "cpu", "local", 32_000_000_000, 26.5e9, (("bf16", 2e12),), local=True
)


def twice(target: Target) -> Target:
    """A machine exactly twice as fast as HERE."""
    return replace(target, id="twice", local=False, bandwidth=53e9, peaks=(("bf16", 4e12),))


def measured(name: str, value: float, spread: float = 0.01) -> Measurement:
    samples = tuple(value * (1 + spread * k) for k in (-1, -0.5, 0, 0.5, 1))
    return Measurement(name, samples, BY_NAME[name].unit, "measured", "timed", "env-1")


def trial(text: str = "", here: Target = HERE) -> Trial:
    case = Case(models.resolve("shape:smollm2-135m"), here, workloads.resolve("chat"))
    plan = Plan(case, tuple(techniques.parse(part) for part in text.split()))
    return Trial(
        "t",
        "s",
        plan,
        "done",
        measurements=(
            measured("ttft_s", 0.080),
            measured("tpot_s", 0.031),
            measured("latency_p95_s", 2.033),
            measured("tokens_per_s", 31.5),
            Measurement("model_bytes", (269e6,), "B", "measured", "summed", "env-1"),
            measured("peak_bytes", 320e6),
            measured("perplexity", 10.0),
            unavailable("energy_j_per_token", "J", "no counter here", "env-1"),
            measured("prepare_s", 1.0),
        ),
    )


def found(one: Trial, target: Target) -> dict[str, Measurement]:
    return {measurement.metric: measurement for measurement in project(one, target)}


def test_a_machine_twice_as_fast_takes_half_the_time() -> None:
    there = found(trial(), twice(HERE))
    for name, here in (("ttft_s", 0.080), ("tpot_s", 0.031), ("latency_p95_s", 2.033)):
        low, high = there[name].bounds or (0, 0)
        assert there[name].origin == "projected"
        assert low < here / 2 < high
        assert there[name].value == pytest.approx(here / 2, rel=0.35)
    low, high = there["tokens_per_s"].bounds or (0, 0)
    assert low < 63 < high


def test_the_interval_carries_the_measurements_own_and_the_transfer() -> None:
    there = found(trial(), twice(HERE))["tpot_s"]
    low, high = there.bounds or (0, 0)
    # Half the time, a factor of 2 either way, 1 % of noise, 30 layers of 2 and 200 us.
    assert low == pytest.approx(0.031 * 0.99 / 4 + 30 * 2e-6, rel=0.01)
    assert high == pytest.approx(0.031 * 1.01 + 30 * 2e-4, rel=0.01)
    noisy = trial()
    shaken = tuple(
        measured("tpot_s", 0.031, spread=0.3) if one.metric == "tpot_s" else one
        for one in noisy.measurements
    )
    wide = found(replace(noisy, measurements=shaken), twice(HERE))["tpot_s"].bounds or (0, 0)
    assert wide[0] < low
    assert wide[1] > high


def test_another_kind_of_device_is_less_sure() -> None:
    cpu = found(trial(), twice(HERE))["tpot_s"]
    gpu = found(trial(), replace(twice(HERE), kind="cuda"))["tpot_s"]
    assert cpu.bounds is not None
    assert gpu.bounds is not None
    assert gpu.bounds[1] > cpu.bounds[1] * 1.3
    assert "factor of 4" in gpu.method


def test_nothing_is_faster_than_the_targets_best() -> None:
    fast = replace(
        trial(), measurements=(measured("tpot_s", 0.0001), measured("tokens_per_s", 10_000.0))
    )
    there = found(fast, targets.resolve("h100-sxm"))
    floor = 269e6 / 3.35e12
    assert (there["tpot_s"].bounds or (0,))[0] == pytest.approx(floor, rel=0.05)
    assert (there["tokens_per_s"].bounds or (0, 0))[1] <= 1 / floor


def test_facts_of_the_artefact_stay_measured() -> None:
    there = found(trial("weight-int8"), targets.resolve("apple-m4"))
    for name in ("model_bytes", "perplexity"):
        assert there[name].origin == "measured"
        assert "measured on env-1: a fact of the artefact" in there[name].method
    assert there["perplexity"].samples == trial().metric("perplexity").samples  # type: ignore[union-attr]
    assert there["prepare_s"].origin == "measured"


def test_energy_and_cost_follow_the_targets_statements() -> None:
    there = found(trial(), targets.resolve("h100-sxm"))
    rate = there["tokens_per_s"].bounds or (0, 0)
    dollars = there["usd_per_mtok"].bounds or (0, 0)
    assert dollars[1] == pytest.approx(6.88 / 3600 / rate[0] * 1e6)
    assert there["energy_j_per_token"].origin == "projected"
    phone = found(trial(), targets.resolve("snapdragon-8-elite"))
    assert phone["usd_per_mtok"].origin == "unavailable"
    assert phone["energy_j_per_token"].origin == "unavailable"


def test_without_limits_of_this_machine_the_targets_own_are_used(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    blind = replace(HERE, bandwidth=None, peaks=())
    there = found(trial(here=blind), targets.resolve("apple-m4"))["tpot_s"]
    assert there.origin == "projected"
    assert "limits of apple-m4 as its catalogue entry states them" in there.method
    assert "measured here" not in there.method


def test_speculations_measured_acceptance_is_used() -> None:
    text = "speculative:tokens=3,draft=nobody/knows"
    plain = trial(text)
    counted = replace(plain, measurements=(*plain.measurements, measured("accepted_per_step", 3.0)))
    there = found(counted, twice(HERE))
    assert there["accepted_per_step"].origin == "measured"
    low, high = there["tpot_s"].bounds or (0, 0)
    assert low < 0.031 / 2 < high


def test_on_a_sensor_the_quality_must_be_measured_again(synthetic_study: Study) -> None:
    shape = ClassifierShape(6_090, 87_808, 64, 10, 1_088)
    model = replace(synthetic_study.case.model, id="digits-cnn", shape=shape)
    case = Case(model, HERE, workloads.resolve("sensor-frame"))
    one = Trial(
        "t",
        "s",
        Plan(case),
        "done",
        measurements=(measured("latency_p95_s", 1e-4), measured("accuracy", 0.98)),
    )
    there = found(one, targets.resolve("stm32l4r5"))
    assert there["accuracy"].origin == "unavailable"
    assert "0.98 measured here must be measured again" in there["accuracy"].method
    assert there["latency_p95_s"].origin == "projected"
    assert "MACs" in there["latency_p95_s"].method
    elsewhere = found(one, targets.resolve("apple-m4"))
    assert elsewhere["accuracy"].origin == "measured"


def test_the_quality_of_an_eight_bit_model_is_an_estimate_for_the_sensor(
    synthetic_study: Study,
) -> None:
    model = replace(synthetic_study.case.model, shape=ClassifierShape(6_090, 87_808, 64, 10, 1_088))
    case = Case(model, targets.resolve("stm32l4r5"), workloads.resolve("sensor-frame"))
    quality = (measured("accuracy", 0.98), measured("kl_nats", 0.01))
    for words, origin in (("", "unavailable"), ("rtn:bits=4", "unavailable"),
                          ("w8a8:mode=static", "estimated")):  # fmt: skip
        plan = Plan(case, tuple(techniques.parse(part) for part in words.split()))
        placed = place_quality(quality, plan)
        assert {one.origin for one in placed} == {origin}
    here = Plan(replace(case, target=HERE))
    assert place_quality(quality, here) == quality
    far = Plan(replace(case, target=targets.resolve("apple-m4")))
    assert [one.origin for one in place_quality(quality, far)] == ["measured", "measured"]


def test_every_target_gets_an_answer_without_an_error() -> None:
    for target in targets.list_targets()[1:]:
        names = [(one.metric, one.condition) for one in project(trial("weight-int4"), target)]
        assert len(names) == len(set(names)), target.id


def test_memory_elsewhere_is_the_account_there_by_part() -> None:
    here = trial()
    parts = (
        Measurement("memory_bytes", (9e6,), "B", "measured", "counted"),
        Measurement(
            "memory_bytes",
            (8e6,),
            "B",
            "measured",
            "counted",
            condition=read_condition("weights:bf16"),
        ),
        Measurement(
            "memory_bytes",
            (3e6,),
            "B",
            "measured",
            "counted",
            condition=read_condition("libraries"),
        ),
        Measurement("kv_bytes", (589824.0,), "B", "measured", "counted"),
    )
    one = replace(here, measurements=(*here.measurements, *parts))
    there = project(one, targets.resolve("h100-sxm"))
    memory = {str(one.condition): one for one in there if one.metric == "memory_bytes"}
    assert set(memory) == {"", "weights:bf16", "kv", "workspace"}
    assert {one.origin for one in memory.values()} == {"projected"}
    whole = memory.pop("")
    assert sum(one.value or 0 for one in memory.values()) == pytest.approx(whole.value)
    sensor = project(one, targets.resolve("stm32l4r5"))
    assert not [one for one in sensor if one.condition]
    assert len([one for one in there if one.metric == "memory_bytes"]) == 4
    (kv,) = (one for one in there if one.metric == "kv_bytes")
    assert (kv.origin, kv.value) == ("measured", 589824.0)
