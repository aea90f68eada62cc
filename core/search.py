"""Which plans are worth measuring for a case: the baseline, each technique alone, and stacks that
make sense.
"""

from __future__ import annotations

from core.measure.presets import preset as find_preset
from core.plan import Case, Plan, Technique
from core.techniques.batch.static import StaticBatch
from core.techniques.decode.speculative import Speculative
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.weight_int4 import WeightInt4
from core.techniques.quantize.weight_int8 import WeightInt8


def propose(
    case: Case, preset: str, wanted: tuple[Technique, ...] = (), seed: int = 0
) -> tuple[Plan, ...]:
    """Plans in the order to measure them; the baseline is always first.

    With `wanted` techniques: each alone and, when the order makes sense, all together. Without: the
    preset's own list. Plans whose technique refuses the case are included, so that the refusal is
    seen.
    """
    if wanted:
        stacks: list[tuple[Technique, ...]] = [(technique,) for technique in wanted]
        together = tuple(sorted(wanted, key=_rank))
        if len(wanted) > 1 and Plan(case, together, seed).refuse() is None:
            stacks.append(together)
    elif case.model.task == "image":
        stacks = [(StaticBatch(size),) for size in (2, 4, 8, 16)]
    else:
        stacks = _decoder_stacks(case, find_preset(preset).distill_steps, deep=preset != "quick")
    plans = [Plan(case, (), seed)]
    for stack in stacks:
        plan = Plan(case, stack, seed)
        if plan.key not in {known.key for known in plans}:
            plans.append(plan)
    return tuple(plans)


def _rank(technique: Technique) -> int:
    from core.plan import KINDS

    return KINDS.index(technique.kind)


def _decoder_stacks(case: Case, steps: int, deep: bool) -> list[tuple[Technique, ...]]:
    """One of every kind alone, then the stacks that the field uses."""
    half, quarter = PruneMlpChannels(0.5), PruneMlpChannels(0.25)
    recover = SoftTargets(steps=steps)
    stacks: list[tuple[Technique, ...]] = [
        (WeightInt8(),),
        (WeightInt4(),),
        (quarter,),
        (Speculative(),),
        (StaticBatch(2),),
        (StaticBatch(4),),
        (StaticBatch(8),),
        (StaticBatch(16),),
        (WeightInt8(), StaticBatch(8)),
    ]
    if case.model.source != "shape":
        stacks += [
            (quarter, recover),
            (half, recover),
            (quarter, recover, WeightInt8(), StaticBatch(8)),
        ]
    if deep:
        stacks += [
            (WeightInt4(64),),
            (WeightInt4(128),),
            (half,),
            (Speculative(2),),
            (Speculative(5),),
            (WeightInt8(), Speculative()),
            (WeightInt4(), StaticBatch(8)),
        ]
        if case.model.source != "shape":
            stacks += [(half, recover, WeightInt4())]
    return stacks
