"""The roofline: seconds of a pass, and of a workload made of passes (Williams et al. 2009).

A pass takes max(bytes / bandwidth, FLOPs / peak) + layers x overhead; at rates that are not
`overlapped` moving and computing add up. A group of b sequences takes one prompt pass and
output - 1 decode steps; a step reads every weight once for all b sequences. With speculation a step
is k draft passes and one verifying pass of k + 1 positions a sequence, and yields `accepted`
tokens. Requests beyond one group wait for the groups before them, as in core.measure.serve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.plan import Plan
from core.predict.effects import effects
from core.predict.limits import Rates
from core.predict.work import DecoderWork, Load, decoder_work, draft_work

# Up to this many FLOPs a byte memory is the limit on every device we list, whatever its peak.
MEMORY_BOUND = 4.0


class UnknownPeak(Exception):
    """Compute may be the limit and the target states no peak."""


@dataclass(frozen=True)
class Span:
    """A range for numbers that are known by a factor: its geometric middle is the value where no
    `middle` says what is typical."""

    low: float
    high: float
    middle: float | None = None

    @property
    def value(self) -> float:
        """What is typical, else sqrt(low x high); the middle where a bound is 0."""
        if self.middle is not None:
            return self.middle
        if self.low <= 0:
            return (self.low + self.high) / 2
        return float(np.sqrt(self.low * self.high))


def seconds(load: Load, layers: int, rates: Rates) -> float:
    """Seconds of one pass; UnknownPeak when compute may be the limit and nobody states it."""
    moving = load.bytes / rates.bandwidth
    if rates.compute is None:
        if load.flops / load.bytes > MEMORY_BOUND:
            raise UnknownPeak
        return moving + layers * rates.layer_overhead_s
    computing = load.flops / rates.compute
    both = max(moving, computing) if rates.overlapped else moving + computing
    return both + layers * rates.layer_overhead_s


def step_seconds(plan: Plan, rates: Rates) -> float:
    """Seconds of one decode step of a group, in the middle of the output; draft passes included."""
    effect = effects(plan)
    workload = plan.case.workload
    work = decoder_work(plan)
    context = workload.prompt_tokens + workload.output_tokens // 2
    rows = effect.batch * (effect.draft_tokens + 1)
    total = seconds(work.step(rows, effect.batch, context), work.shape.layers, rates)
    if effect.draft_tokens:
        draft = draft_work(effect) or work
        step = draft.step(effect.batch, effect.batch, context)
        total += effect.draft_tokens * seconds(step, draft.shape.layers, rates)
    return total


def prompt_seconds(plan: Plan, rates: Rates) -> float:
    """Seconds until a group's first token: its prompts, and the draft's where there is one."""
    effect = effects(plan)
    tokens = plan.case.workload.prompt_tokens
    work: DecoderWork = decoder_work(plan)
    total = seconds(work.prompt(tokens, effect.batch), work.shape.layers, rates)
    draft = draft_work(effect)
    if draft is not None:
        total += seconds(draft.prompt(tokens, effect.batch), draft.shape.layers, rates)
    return total


def decoder_times(plan: Plan, rates: Rates, accepted: float) -> dict[str, float]:
    """ttft_s, tpot_s, latency_s, latency_p95_s and tokens_per_s at these rates, as
    core.measure.serve has them.

    ttft_s and latency_s are the median over the round's requests, waiting included. What may be
    limited by a compute rate that nobody states is left out: without one, often only tpot_s
    remains.
    """
    workload = plan.case.workload
    batch = effects(plan).batch
    requests = max(1, workload.concurrency)
    try:
        each = step_seconds(plan, rates) / accepted
    except UnknownPeak:
        return {}
    try:
        first = prompt_seconds(plan, rates)
    except UnknownPeak:
        return {"tpot_s": each}
    whole = first + max(0, workload.output_tokens - 1) * each
    queue = np.arange(requests) // batch
    return {
        "ttft_s": float(np.median(queue * whole + first)),
        "tpot_s": each,
        "latency_s": float(np.median((queue + 1) * whole)),
        "latency_p95_s": float(np.quantile((queue + 1) * whole, 0.95)),
        "tokens_per_s": requests * workload.output_tokens / (-(-requests // batch) * whole),
    }
