"""Times measured here, as they would be on another target.

Where it is known what published programs typically reach there (typical.py), the trial's quotient
is carried over: how many times as long it took as is usual of this machine's limits. The band then
reaches from the published programs to the carried quotient, and the class's spread beyond either:

    there = typical(there) x measured here / usual(here)

Where nothing is typical there, the share of this machine's limits that the trial reached is:

    share = ideal(here) / measured here;  there = roofline(target's limits x share)

and TRANSFER says by which factor that share may differ. Neither is ever faster than the target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from core.machine import targets
from core.measurement import Measurement
from core.metrics import metric
from core.plan import Case, Plan
from core.predict.effects import effects
from core.predict.estimate import TIMES
from core.predict.limits import Rates, TargetLimits, limits
from core.predict.roofline import Span, decoder_times
from core.predict.typical import Typical, typical
from core.predict.work import decoder_work
from core.study import Trial
from core.target import Target

# By which factor the reached share of the limit may differ between like and unlike devices, where
# nothing is known of the class of the other one.
TRANSFER = {"same": 2.0, "other": 4.0}


@dataclass(frozen=True)
class _Sides:
    """A plan there and on the machine that measured it, with the limits of both."""

    there: Plan
    here: Plan
    there_edge: TargetLimits
    here_edge: TargetLimits
    typical: Typical | None


def transferred(trial: Trial, plan: Plan) -> tuple[dict[str, Span], str]:
    """Projected ranges of the time metrics; empty when either machine's limits are not known."""
    sides = _sides(trial, plan)
    if sides is None:
        return {}, ""
    accepted = trial.value("accepted_per_step") or 1.0
    if sides.typical is not None:
        return _by_quotient(trial, sides, sides.typical, accepted)
    return _by_share(trial, sides, accepted)


def gains(trial: Trial, plan: Plan) -> dict[str, float]:
    """By which factor each time metric of the plan changes more than the unchanged model's from
    here to there: the ratio of the four rooflines."""
    factors = []
    for techniques in (plan.techniques, ()):
        accepted = (trial.value("accepted_per_step") or 1.0) if techniques else 1.0
        sides = _sides(trial, Plan(plan.case, techniques, plan.seed))
        factors.append({} if sides is None else _from_here_to_there(sides, accepted))
    ours, unchanged = factors
    return {name: ours[name] / unchanged[name] for name in ours if unchanged.get(name)}


def _sides(trial: Trial, plan: Plan) -> _Sides | None:
    here = _here(trial.plan.case)
    effect, work = effects(plan), decoder_work(plan)
    reads = work.step(1, 1, 0).bytes
    there_edge = limits(plan.case.target, None, effect.packed, reads)
    here_edge = None if here is None else limits(here, None, effect.packed, reads)
    if here is None or here_edge is None or there_edge is None:
        return None
    here_plan = Plan(replace(plan.case, target=here), plan.techniques, plan.seed)
    usual = typical(plan.case.target, work, effect)
    return _Sides(plan, here_plan, there_edge, here_edge, usual)


def _by_quotient(
    trial: Trial, sides: _Sides, known: Typical, accepted: float
) -> tuple[dict[str, Span], str]:
    how = (
        f"what is typical of {sides.there.case.target.id} x measured here / usual of this "
        f"machine's limits, and from there to what is typical; {known.basis}"
    )
    there = decoder_times(sides.there, known.rates, accepted)
    fastest = decoder_times(sides.there, known.fastest, accepted)
    usual = _usual(sides, accepted)
    spans = {}
    for name, middle in there.items():
        measurement = trial.metric(name)
        if measurement is None or not measurement.value or name not in usual:
            continue
        low, high = _ends(measurement)
        carried = [middle * end / usual[name] for end in (low, measurement.value, high)]
        ends = (
            min(middle, carried[0]) / known.spread,
            carried[1],
            max(middle, carried[2]) * known.spread,
        )
        # No program is faster than the target's stated limits.
        bound = min if metric(name).better == "higher" else max
        spans[name] = Span(
            bound(ends[0], fastest[name]),
            bound(ends[2], fastest[name]),
            bound(ends[1], fastest[name]),
        )
    return spans, how


def _by_share(trial: Trial, sides: _Sides, accepted: float) -> tuple[dict[str, Span], str]:
    target, edge = sides.there.case.target, sides.there_edge
    ideal = decoder_times(sides.here, sides.here_edge.ideal, accepted)
    alike = sides.here.case.target.kind == target.kind
    factor = TRANSFER["same" if alike else "other"]
    how = (
        f"measured x ratio of the rooflines of {target.id} and of the machine that "
        f"measured it; the reached share of the limit may differ by a factor of {factor:g}; "
        f"{edge.basis}"
    )
    spans = {}
    for name in TIMES:
        measurement = trial.metric(name)
        if measurement is None or not measurement.value or name not in ideal:
            continue
        shares = _shares(measurement, ideal[name])
        fast = _scaled(edge, shares[1] * factor, edge.best)
        slow = _scaled(edge, shares[0] / factor, edge.worst)
        ends = [decoder_times(sides.there, rates, accepted).get(name) for rates in (fast, slow)]
        found = sorted(end for end in ends if end is not None)
        if len(found) == 2:
            spans[name] = Span(found[0], found[1])
    return spans, how


def _from_here_to_there(sides: _Sides, accepted: float) -> dict[str, float]:
    """What is typical there over what is usual here, else the ratio of the ideal rooflines."""
    if sides.typical is not None:
        here = _usual(sides, accepted)
        there = decoder_times(sides.there, sides.typical.rates, accepted)
    else:
        here = decoder_times(sides.here, sides.here_edge.ideal, accepted)
        there = decoder_times(sides.there, sides.there_edge.ideal, accepted)
    return {name: there[name] / here[name] for name in there if here.get(name)}


def _usual(sides: _Sides, accepted: float) -> dict[str, float]:
    """What is usual here: the geometric middle between the best and worst of what programs reach
    of this machine's limits."""
    best = decoder_times(sides.here, sides.here_edge.best, accepted)
    worst = decoder_times(sides.here, sides.here_edge.worst, accepted)
    return {name: float(np.sqrt(best[name] * worst[name])) for name in best}


def _ends(measurement: Measurement) -> tuple[float, float]:
    assert measurement.value is not None
    return measurement.interval() or (measurement.value, measurement.value)


def _shares(measurement: Measurement, ideal: float) -> tuple[float, float]:
    """The lowest and highest share of the ideal that the measurement's interval allows."""
    low, high = _ends(measurement)
    if metric(measurement.metric).better == "lower":
        return ideal / high, ideal / low
    return low / ideal, high / ideal


def _scaled(edge: TargetLimits, share: float, other: Rates) -> Rates:
    """The target's ideal rates x share, capped at the best that programs reach there."""
    compute = None
    if edge.ideal.compute is not None and edge.best.compute is not None:
        compute = min(edge.ideal.compute * share, edge.best.compute)
    bandwidth = min(edge.ideal.bandwidth * share, edge.best.bandwidth)
    return Rates(bandwidth, compute, other.layer_overhead_s)


def _here(case: Case) -> Target | None:
    """The machine that measured: the study's own target when it is local, else this one."""
    here = case.target if case.target.local else targets.resolve("local")
    return here if here.bandwidth is not None else None
