"""Which prefixes a study keeps: those that train or calibrate and that a later plan begins with."""

from __future__ import annotations

import pytest

from core.catalogue import models, workloads
from core.plan import Case, Plan
from core.planner.prefixes import shared
from core.planner.search import propose
from core.target import Target
from core.techniques.batch.static import StaticBatch
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.gptq import Gptq
from core.techniques.quantize.rtn import RoundToNearest
from core.techniques.recover.lora import Lora

TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
CASE = Case(models.resolve("pycode"), TARGET, workloads.resolve("chat"))
PRUNE, DISTILL, INT8, BATCH = PruneMlpChannels(), SoftTargets(), RoundToNearest(8), StaticBatch(2)


@pytest.mark.parametrize(
    ("techniques", "later", "lengths"),
    [
        ((PRUNE, DISTILL), [(PRUNE, DISTILL, INT8)], (2,)),
        ((PRUNE,), [(PRUNE, DISTILL), (PRUNE, DISTILL, INT8)], (1,)),
        ((PRUNE, DISTILL, INT8), [(PRUNE, INT8), (PRUNE, DISTILL, BATCH)], (1, 2)),
        ((INT8, BATCH), [(INT8, BATCH)], ()),
        ((Gptq(), Lora()), [(Gptq(),), (Gptq(3), Lora())], (1,)),
        ((PRUNE, INT8, BATCH), [(PRUNE, INT8, BATCH)], (1,)),
        ((PRUNE,), [(PruneMlpChannels(0.5),), ()], ()),
        ((PRUNE,), [], ()),
        ((), [(PRUNE,)], ()),
    ],
)
def test_lengths(techniques: tuple, later: list[tuple], lengths: tuple[int, ...]) -> None:
    assert shared(Plan(CASE, techniques), [Plan(CASE, each) for each in later]) == lengths


def test_the_quick_study_prunes_once_and_trains_the_pruned_model_once() -> None:
    plans = propose(CASE, "quick")
    kept = {
        plan.title: shared(plan, plans[place:])
        for place, plan in enumerate(plans, 1)
        if shared(plan, plans[place:])
    }
    pruned = [plan for plan in plans if any(one.kind == "prune" for one in plan.techniques)]
    assert len(pruned) == 3
    assert kept == {pruned[0].title: (1,), pruned[1].title: (2,)}
