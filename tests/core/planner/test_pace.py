"""What a study's pace says of the rest, and what is left out so that a promised end is kept."""

from __future__ import annotations

import pytest

from core.catalogue import models, workloads
from core.plan import Case, Plan
from core.planner.pace import STEP, TURNS, Took, choose, costs, whole_rounds
from core.planner.search import propose
from core.target import Target
from core.techniques.cache.kv_cache import KvCache
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.gptq import Gptq
from core.techniques.quantize.rtn import RoundToNearest

TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
CASE = Case(models.resolve("pycode"), TARGET, workloads.resolve("chat"))
INT8, INT4, PRUNE, DISTILL = (
    RoundToNearest(8),
    RoundToNearest(4),
    PruneMlpChannels(0.25),
    SoftTargets(steps=10),
)


def plan(*techniques) -> Plan:
    return Plan(CASE, techniques)


def took(*techniques, rest: float = 6.0, serve: float = 4.0, **stages: float) -> Took:
    """A trial that took rest + serve seconds beside its techniques."""
    named = {name.replace("_", "-"): seconds for name, seconds in stages.items()}
    return Took(plan(*techniques), {"start": rest, "serve": serve, **named})


def seconds(plans: list[Plan], ended: list[Took]) -> list[float]:
    return [cost.seconds for cost in costs(plans, ended)]


BASELINE = took(rest=3.0, serve=2.0, calibrate=8.0)


def test_nothing_is_known_before_a_trial_has_ended() -> None:
    assert seconds([plan(INT8)], []) == [0.0]


def test_the_baseline_tells_of_the_others_without_what_is_done_once() -> None:
    assert BASELINE.rest == 5.0
    assert seconds([plan(KvCache(8))], [BASELINE]) == pytest.approx([5 * TURNS * 1.05])


def test_a_technique_costs_what_it_or_its_like_took() -> None:
    ended = [BASELINE, took(INT8, rtn=1.0), took(PRUNE, DISTILL, prune_mlp=2.0, distill_soft=30.0)]
    longer = plan(SoftTargets(steps=20))
    assert seconds([plan(INT8), plan(INT4), longer], ended) == [11.0, 11.0, 70.0]
    # A calibration is told by another one.
    assert seconds([plan(Gptq())], ended) == [12.0]


def test_training_that_nobody_has_seen_is_a_share_of_the_rest() -> None:
    ended = [BASELINE, took(INT8, rtn=1.0)]
    assert seconds([plan(DISTILL)], ended) == pytest.approx([10.0 + 10 * STEP * 10.0])


def test_a_prefix_is_made_once() -> None:
    ended = [BASELINE, took(INT8, rtn=1.0), took(PRUNE, prune_mlp=2.0)]
    ended.append(took(SoftTargets(steps=5), distill_soft=15.0))
    plans = [plan(PRUNE, DISTILL), plan(PRUNE, DISTILL, INT8), plan(DISTILL)]
    # The pruned weights are kept already; the second loads what the first distilled.
    assert seconds(plans, ended) == [40.0, 11.0, 40.0]


ENDED = [BASELINE, took(INT8, rtn=0.0, rest=6.0, serve=4.0)]
QUICK = list(propose(CASE, "quick"))[2:]


def test_all_that_fits_is_measured_in_full() -> None:
    expected = sum(seconds(QUICK, ENDED))
    assert choose(QUICK, ENDED, expected, 0.5).plans == tuple(QUICK)
    assert choose(QUICK, ENDED, expected, 0.5).rounds == 1.0


def test_rounds_go_before_plans() -> None:
    expected = sum(seconds(QUICK, ENDED))
    chosen = choose(QUICK, ENDED, expected - 2.0, 0.5)
    assert chosen.plans == tuple(QUICK)
    assert 0.5 < chosen.rounds < 1.0
    # So many fewer that the rest fits.
    assert sum(c.with_rounds(chosen.rounds) for c in costs(QUICK, ENDED)) == pytest.approx(
        expected - 2.0
    )


def test_the_latest_training_goes_before_what_is_the_last_of_its_kind() -> None:
    first = choose(QUICK, ENDED, sum(seconds(QUICK, ENDED)) * 0.8, 1.0).plans
    assert first == tuple(one for one in QUICK if one in first)
    assert QUICK[-1] not in first
    few = choose(QUICK, ENDED, 45.0, 1.0).plans
    kinds = {one.kind for each in few for one in each.techniques}
    assert len(few) == 4
    assert {"prune", "cache", "decode"} <= kinds
    assert not any(one.trains for each in few for one in each.techniques)


def test_nothing_fits_into_nothing() -> None:
    assert choose(QUICK, ENDED, 5.0, 0.5).plans == ()
    assert choose([], ENDED, 5.0, 0.5).plans == ()


@pytest.mark.parametrize(("share", "rounds"), [(1.0, 12), (0.75, 9), (0.7, 9), (0.1, 6)])
def test_rounds_are_whole_and_enough_for_a_verdict(share: float, rounds: int) -> None:
    assert whole_rounds(share, 12, 6) == rounds
