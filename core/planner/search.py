"""Which plans are worth measuring for a case: the baseline, each technique alone, and stacks that
make sense.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.measure.presets import preset as find_preset
from core.plan import Case, Plan, Technique
from core.priorities import Limit
from core.techniques.batch.static import StaticBatch
from core.techniques.cache.kv_cache import KvCache
from core.techniques.decode.speculative import Speculative
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.auto_mixed import AutoMixed
from core.techniques.quantize.awq import Awq
from core.techniques.quantize.gptq import Gptq
from core.techniques.quantize.k_quant import KQuant
from core.techniques.quantize.nf4 import NormalFloat4
from core.techniques.quantize.qat import Qat
from core.techniques.quantize.rtn import RoundToNearest
from core.techniques.quantize.w8a8 import W8A8
from core.techniques.quantize.weight_int4 import WeightInt4
from core.techniques.quantize.weight_int8 import WeightInt8
from core.techniques.recover.lora import Lora


def propose(
    case: Case,
    preset: str,
    wanted: tuple[Technique, ...] = (),
    seed: int = 0,
    limits: Sequence[Limit] = (),
) -> tuple[Plan, ...]:
    """Plans in the order to measure them; the baseline is always first.

    With `wanted` techniques: each alone and, when the order makes sense, all together. Without: the
    preset's own list, with the study's hard `limits` in the settings that promise one. Plans whose
    technique refuses the case are included, so that the refusal is
    seen.
    """
    if wanted:
        stacks: list[tuple[Technique, ...]] = [(technique,) for technique in wanted]
        together = tuple(sorted(wanted, key=_rank))
        if len(wanted) > 1 and Plan(case, together, seed).refuse() is None:
            stacks.append(together)
    elif case.target.kind == "mcu":
        # A microcontroller runs every plan as int8 and takes one frame at a time: bit widths and
        # batches change nothing there. What 8 bit does to the answers is worth knowing.
        stacks = [(W8A8("static"),)]
    elif case.model.task == "image":
        stacks = [(W8A8(),), (RoundToNearest(8),), (RoundToNearest(4),)]
        stacks += [(batch,) for batch in StaticBatch.candidates(case)]
    else:
        stacks = _decoder_stacks(case, find_preset(preset).distill_steps, deep=preset != "quick")
    plans = [Plan(case, (), seed)]
    for stack in stacks:
        limited = stack if wanted else tuple(one.within(limits) for one in stack)
        plan = Plan(case, limited, seed)
        if plan.key not in {known.key for known in plans}:
            plans.append(plan)
    return tuple(plans)


def _rank(technique: Technique) -> int:
    from core.plan import KINDS

    return KINDS.index(technique.kind)


def _decoder_stacks(case: Case, steps: int, deep: bool) -> list[tuple[Technique, ...]]:
    """One of every kind alone, then the stacks that the field uses. Random weights are neither
    calibrated nor trained.
    """
    half, quarter = PruneMlpChannels(0.5), PruneMlpChannels(0.25)
    recover = SoftTargets(steps=steps)
    learns = case.model.source != "shape"
    stacks: list[tuple[Technique, ...]] = [
        (WeightInt8(),),
        (WeightInt4(),),
        (W8A8(),),
        (quarter,),
        (KvCache(8),),
        (Speculative(),),
    ]
    # A batch that the workload's requests never fill gains nothing.
    batches = StaticBatch.candidates(case)
    largest = batches[-1:]
    stacks += [(one,) for one in (batches if deep else (*batches[1:-1][:1], *largest))]
    if largest:
        stacks += [(WeightInt4(), *largest)]
    if learns:
        stacks += [
            (Gptq(),),
            (NormalFloat4(), Lora(steps=steps)),
            (quarter, recover),
            (quarter, recover, WeightInt8(), *largest),
        ]
    if not deep:
        return stacks
    stacks += [
        (WeightInt4(128),),
        (KQuant(),),
        (RoundToNearest(3),),
        (KvCache(4),),
        (half,),
        (Speculative(2),),
        (Speculative(5),),
        (WeightInt8(), Speculative()),
    ]
    if largest:
        stacks += [(WeightInt8(), *largest)]
    if learns:
        stacks += [
            (Gptq(3),),
            (Awq(),),
            (AutoMixed(),),
            (Qat(3, steps=steps),),
            (half, recover),
            (half, recover, WeightInt4()),
        ]
    return stacks
