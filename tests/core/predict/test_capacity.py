"""Refusals by arithmetic, and sensors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core import techniques
from core.catalogue import models, workloads
from core.catalogue.classes import classes
from core.machine import targets
from core.model import ClassifierShape
from core.plan import Case, Plan
from core.predict import fit, predict
from core.study import Study

# As the bundled CNN: 8 x 8 images, 16 and 32 channels.
SHAPE = ClassifierShape(parameters=6_090, macs=87_808, inputs=64, classes=10, activations=1_088)


def plan(model: str, target: str, text: str = "", concurrency: int = 1) -> Plan:
    asked = replace(workloads.resolve("chat"), concurrency=concurrency)
    case = Case(models.resolve(model), targets.resolve(target), asked)
    return Plan(case, tuple(techniques.parse(part) for part in text.split()))


def sensor_plan(study: Study, target: str, shape: ClassifierShape = SHAPE) -> Plan:
    model = replace(study.case.model, id="digits-cnn", shape=shape)
    return Plan(Case(model, targets.resolve(target), workloads.resolve("sensor-frame")))


def test_a_model_that_fits_is_not_refused() -> None:
    assert fit(plan("shape:llama-3.1-8b", "h100-sxm")) is None
    assert fit(plan("shape:smollm2-135m", "snapdragon-8-gen3")) is None


def test_a_refusal_shows_the_sum() -> None:
    sentence = fit(plan("shape:llama-3.1-8b", "snapdragon-8-gen3"))
    assert sentence is not None
    assert sentence.startswith(
        "16.1 GB of weights + 25.2 MB of KV cache for 1 sequence of 192 tokens"
    )
    assert sentence.endswith("= 16.1 GB exceed the 12.0 GB of Snapdragon 8 Gen 3 phone, 12 GB")


def test_four_bits_make_it_fit() -> None:
    assert fit(plan("shape:llama-3.1-8b", "snapdragon-8-gen3", "weight-int4")) is None


def test_a_batch_can_be_too_much() -> None:
    assert fit(plan("shape:llama-3.1-8b", "rtx-4090", "static-batch:size=16", 1024)) is None
    sentence = fit(plan("shape:llama-3.1-8b", "rtx-4090", "static-batch:size=1024", 1024))
    assert sentence is not None
    assert "KV cache for 1024 sequences" in sentence


def test_here_the_unchanged_weights_must_fit_first() -> None:
    here = replace(targets.resolve("local"), memory_bytes=8_000_000_000)
    tight = plan("shape:llama-3.1-8b", "local", "weight-int4")
    sentence = fit(replace(tight, case=replace(tight.case, target=here)))
    assert sentence is not None
    assert "16.1 GB of weights in 16 bits, which are loaded before they are changed" in sentence


def test_a_context_that_is_too_short_is_refused(synthetic_study: Study) -> None:
    case = synthetic_study.case
    model = replace(case.model, shape=replace(case.model.decoder(), context=100))
    sentence = fit(Plan(replace(case, model=model)))
    assert sentence == (
        "128 prompt + 64 output tokens = 192 exceed the context of 100 tokens that pycode has"
    )


def test_a_decoder_does_not_fit_a_sensor(synthetic_study: Study) -> None:
    sentence = fit(plan("shape:smollm2-135m", "stm32l4r5"))
    assert sentence is not None
    assert "269 MB of weights exceed the 2.10 MB of flash of STM32L4R5" in sentence
    tiny = replace(
        synthetic_study.case.model.decoder(), hidden=16, intermediate=16, vocabulary=64, layers=1
    )
    case = Case(
        replace(synthetic_study.case.model, shape=tiny),
        targets.resolve("stm32l4r5"),
        synthetic_study.case.workload,
    )
    assert "only image classifiers" in (fit(Plan(case)) or "")


def test_a_classifier_fits_or_shows_which_memory_is_short(synthetic_study: Study) -> None:
    assert fit(sensor_plan(synthetic_study, "stm32l4r5")) is None
    large = replace(SHAPE, parameters=3_000_000)
    sentence = fit(sensor_plan(synthetic_study, "stm32l4r5", large))
    assert sentence is not None
    assert "3.00 MB of 8-bit weights + 32.8 kB of program" in sentence
    assert "flash" in sentence
    wide = replace(SHAPE, activations=700_000)
    assert "of RAM" in (fit(sensor_plan(synthetic_study, "stm32l4r5", wide)) or "")
    assert fit(sensor_plan(synthetic_study, "h100-sxm", large)) is None


def test_sensor_latency_is_macs_times_cycles_over_clock(synthetic_study: Study) -> None:
    found = {one.metric: one for one in predict(sensor_plan(synthetic_study, "stm32l4r5"))}
    core = classes().core("cortex-m4")
    assert core is not None
    cycles = 87_808 * core.cycles_per_mac + 6_090 * core.cycles_per_weight
    low, high = found["latency_p95_s"].bounds or (0, 0)
    assert low == pytest.approx(cycles / 120e6 / core.spread)
    assert high == pytest.approx(cycles / 120e6 * core.spread)
    assert found["latency_p95_s"].value == pytest.approx(cycles / 120e6)
    assert found["latency_p95_s"].origin == "projected"
    assert found["model_bytes"].bounds == (6_090, 6_090)
    assert (found["peak_bytes"].bounds or (0,))[0] == 1_088
    assert found["energy_j_per_token"].origin == "unavailable"


def test_an_unlisted_sensor_has_no_latency(synthetic_study: Study) -> None:
    known = sensor_plan(synthetic_study, "stm32l4r5")
    other = replace(known, case=replace(known.case, target=replace(known.case.target, id="mine")))
    found = {one.metric: one for one in predict(other)}
    assert found["latency_p95_s"].value is None
    assert "cycles per MAC of mine are not known" in found["latency_p95_s"].method


def test_a_decoder_on_a_sensor_has_no_numbers() -> None:
    found = predict(plan("shape:smollm2-135m", "stm32l4r5"))
    assert {one.origin for one in found} == {"unavailable"}
