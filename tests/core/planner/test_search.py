"""Which plans are proposed: the baseline first, every kind, each plan once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.errors import BadInput
from core.model import ClassifierShape, DecoderShape, Model
from core.plan import Case
from core.planner.search import propose
from core.target import Target
from core.techniques.batch.static import StaticBatch
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.kinds import KINDS, refuse
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.auto_mixed import AutoMixed
from core.techniques.quantize.awq import Awq
from core.techniques.quantize.gptq import Gptq
from core.techniques.quantize.qat import Qat
from core.techniques.quantize.weight_int import WeightInt4, WeightInt8
from core.techniques.recover.lora import Lora
from core.workload import Workload

SHAPE = DecoderShape(64, 2, 4, 2, 16, 96, 512, 256)
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
CASE = Case(
    Model("pycode", "llama", "bundled", "r1", SHAPE),
    TARGET,
    Workload("chat", "Chat", "text", 128, 64),
)
RANDOM = Case(Model("shape:x", "llama", "shape", "r1", SHAPE), TARGET, CASE.workload)
IMAGES = Case(
    Model("digits", "image-classifier", "bundled", "r1", ClassifierShape(1, 1, 64, 10, 64)),
    TARGET,
    Workload("sensor", "Sensor", "image"),
)


@pytest.mark.parametrize("preset", ["quick", "standard", "deep"])
@pytest.mark.parametrize("case", [CASE, RANDOM, IMAGES])
def test_the_baseline_is_first_and_no_plan_comes_twice(preset: str, case: Case) -> None:
    plans = propose(case, preset)
    assert plans[0].techniques == ()
    assert len({plan.key for plan in plans}) == len(plans)
    assert all(plan.case is case for plan in plans)


def test_the_quick_list_has_ten_runnable_trials_of_all_kinds() -> None:
    several = replace(CASE, workload=replace(CASE.workload, concurrency=16))
    plans = propose(several, "quick")
    runnable = [plan for plan in plans if refuse(plan) is None]
    assert len(runnable) == len(plans) >= 10
    kinds = {technique.kind for plan in plans for technique in plan.techniques}
    assert kinds == set(KINDS)
    assert any(len(plan.techniques) == 4 for plan in plans)


def test_a_longer_preset_tries_more_and_distills_longer() -> None:
    quick, standard = propose(CASE, "quick"), propose(CASE, "standard")
    assert len(standard) > len(quick)

    def steps(plans: tuple[object, ...]) -> set[int]:
        return {
            technique.steps
            for plan in plans
            for technique in plan.techniques  # type: ignore[attr-defined]
            if isinstance(technique, SoftTargets)
        }

    assert max(steps(quick)) < min(steps(standard))


def test_random_weights_are_never_calibrated_or_trained() -> None:
    learn = (SoftTargets, Gptq, Awq, AutoMixed, Qat, Lora)
    for plan in propose(RANDOM, "deep"):
        assert not any(isinstance(technique, learn) for technique in plan.techniques)


def test_images_are_quantized_and_batched() -> None:
    several = replace(IMAGES, workload=replace(IMAGES.workload, concurrency=8))
    kinds = {one.kind for plan in propose(several, "standard") for one in plan.techniques}
    assert kinds == {"quantize", "batch"}
    assert all(refuse(plan) is None for plan in propose(several, "standard"))


@pytest.mark.parametrize("preset", ["quick", "standard", "deep"])
@pytest.mark.parametrize("case", [CASE, RANDOM, IMAGES])
@pytest.mark.parametrize("concurrency", [1, 2, 5, 64])
def test_no_batch_is_proposed_that_the_workload_never_fills(
    preset: str, case: Case, concurrency: int
) -> None:
    asked = replace(case, workload=replace(case.workload, concurrency=concurrency))
    sizes = {plan.batch for plan in propose(asked, preset)}
    assert max(sizes) == concurrency


def test_wanted_techniques_run_alone_and_together_in_the_order_that_makes_sense() -> None:
    wanted = ((StaticBatch(8),), (WeightInt8(),), (PruneMlpChannels(0.5),))
    stacks = [plan.techniques for plan in propose(CASE, "quick", wanted, seed=3)]
    together = (PruneMlpChannels(0.5), WeightInt8(), StaticBatch(8))
    assert stacks == [(), *wanted, together]
    assert all(plan.seed == 3 for plan in propose(CASE, "quick", wanted, seed=3))


def test_wanted_techniques_that_exclude_each_other_run_alone() -> None:
    wanted = ((WeightInt8(),), (WeightInt4(),))
    stacks = [plan.techniques for plan in propose(CASE, "quick", wanted)]
    assert stacks == [(), *wanted]
    twice = propose(CASE, "quick", ((WeightInt8(),), (WeightInt8(),)))
    assert [plan.techniques for plan in twice] == [(), (WeightInt8(),)]


def test_single_techniques_and_stacks_stand_side_by_side_in_one_study() -> None:
    wanted = ((WeightInt8(),), (SoftTargets(), PruneMlpChannels(0.5)), (WeightInt4(),))
    stacks = [plan.techniques for plan in propose(CASE, "quick", wanted)]
    # A stack is put into the order of its kinds; nothing else is added to what was asked.
    assert stacks == [
        (), (WeightInt8(),), (PruneMlpChannels(0.5), SoftTargets()), (WeightInt4(),),
    ]  # fmt: skip


def test_a_refused_technique_is_proposed_so_that_its_reason_is_seen() -> None:
    plans = propose(IMAGES, "quick", ((SoftTargets(),),))
    assert plans[1].techniques == (SoftTargets(),)
    assert "needs a decoder" in str(refuse(plans[1]))


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown preset 'fast'"):
        propose(CASE, "fast")


def test_on_a_microcontroller_only_what_changes_something_is_proposed() -> None:
    sensor = replace(IMAGES, target=replace(TARGET, id="mcu", kind="mcu", local=False))
    for preset in ("quick", "standard", "deep"):
        plans = propose(replace(sensor, workload=replace(sensor.workload, concurrency=8)), preset)
        assert [plan.title for plan in plans] == ["baseline", "w8a8(mode=static)"]
