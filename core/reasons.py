"""Why a trial is recommended and why another is not, in sentences with numbers. Chooses nothing.

The numbers are those of the trials; the comparison is the utility's (core.utility).
"""

from __future__ import annotations

from core import format as shown
from core import metrics, utility
from core.priorities import Limit
from core.study import Study, Trial

# Below this share of a doubling two gains read the same.
SAME = 0.005


def failures(trial: Trial, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """The limits that `trial` does not pass, those with an unknown value included."""
    return tuple(limit for limit in limits if not limit.passes(known(trial, limit.metric)))


def known(trial: Trial, name: str) -> float | None:
    """The value of a metric; the baseline's distance to itself is known without measuring it."""
    value = trial.value(name)
    if value is None and trial.is_baseline:
        return {"kl_nats": 0.0, "top1_agreement": 1.0}.get(name)
    return value


def no_baseline(study: Study) -> str:
    found = study.baseline
    if found is None:
        return "Nothing can be recommended: the study has no baseline to compare with."
    reason = f" ({found.reason})" if found.reason else ""
    return (
        f"Nothing can be recommended yet: the baseline is {found.state}{reason}, "
        "and every gain is a ratio to it."
    )


def because(
    study: Study, winner: Trial, baseline: Trial, scores: dict[str, float]
) -> tuple[str, ...]:
    """What the winner gains and costs, one sentence a word, then the limits, then what is not
    known.
    """
    said = []
    if winner.is_baseline:
        others = [trial for trial in study.done() if not trial.is_baseline]
        tail = (
            "no change that passes the limits has a higher utility"
            if others
            else "no change has been measured yet"
        )
        said.append(f"The unchanged model is best for these priorities: {tail}.")
    else:
        said.append(
            f"{winner.plan.title} has the highest utility of the trials that pass every limit: "
            f"{_signed(scores[winner.id])} against 0 for the baseline."
        )
        said += [
            sentence(metric_name, winner, baseline)
            for metric_name in _told(study, winner, baseline)
        ]
    for limit in study.priorities.limits:
        value = known(winner, limit.metric)
        said.append(f"It passes {limit}: {shown.of_metric(limit.metric, value)}.")
    said += _unknown(study)
    origins = sorted(
        {m.origin for m in winner.measurements if m.origin in ("projected", "estimated")}
    )
    if origins:
        names = [m.metric for m in winner.measurements if m.origin in origins]
        said.append(f"Not measured but {' or '.join(origins)}: {', '.join(names)}.")
    return tuple(said)


def _told(study: Study, winner: Trial, baseline: Trial) -> list[str]:
    """Metrics worth a sentence: those that decided, then any other of the user's words that got
    worse.
    """
    decided = [name for _, name in utility.axes(study)]
    words = {word for word, _ in utility.axes(study)}
    others = []
    for name in (metric.name for metric in metrics.METRICS if metric.priority in words):
        one = utility.gain("", name, winner, baseline)
        if name not in decided and one is not None and one.gain < -max(SAME, one.spread or 0.0):
            others.append(name)
    return decided + others


def sentence(name: str, trial: Trial, baseline: Trial) -> str:
    """One metric of `trial` against the baseline, as `1.92x faster: time per output token 12.1 ms
    -> 6.30 ms.`
    """
    metric = metrics.metric(name)
    before, after = known(baseline, name), known(trial, name)
    if after is None:
        return f"{metric.label} is unknown for this trial, so it got no credit for it."
    if before is None:
        return f"{metric.label}: {shown.of_metric(name, after)}; the baseline's is unknown."
    numbers = f"{shown.of_metric(name, before)} -> {shown.of_metric(name, after)}"
    label = (
        metric.label[0].lower() + metric.label[1:]
        if not metric.label.startswith("KL")
        else metric.label
    )
    one = utility.gain("", name, trial, baseline)
    if one is None or (before == after):
        return f"Unchanged: {label} {numbers}."
    if one.spread is not None and abs(one.gain) <= one.spread:
        return f"Within noise: {label} {numbers}."
    head = _by_how_much(name, before, after)
    proof = "" if one.spread is not None else " (too few runs to be sure)"
    return f"{head}: {label} {numbers}{proof}."


def _by_how_much(name: str, before: float, after: float) -> str:
    """`1.92x faster`, `2.10x larger`, or the difference of a quality metric."""
    if name in utility.QUALITY:
        worse = (after > before) == (metrics.metric(name).better == "lower")
        return "Quality is lower" if worse else "Quality is higher"
    larger, smaller = max(before, after), min(before, after)
    words = {
        "latency": ("slower", "faster"),
        "throughput": ("more throughput", "less throughput"),
        "size": ("larger", "smaller"),
        "energy": ("more energy", "less energy"),
        "cost": ("dearer", "cheaper"),
    }
    up, down = words[metrics.metric(name).priority]
    factor = shown.ratio(larger / smaller) if smaller > 0 else "much"
    return f"{factor} {up if after > before else down}"


def _unknown(study: Study) -> list[str]:
    """A sentence for every weighted word that nothing could be judged by, and for partial
    knowledge.
    """
    found = dict(utility.axes(study))
    said = []
    for word in metrics.PRIORITIES:
        if study.priorities.weight(word) <= 0:
            continue
        if word not in found:
            said.append(f"Nothing is known about {word} here, so its weight did not count.")
            continue
        blind = [trial for trial in study.done() if utility.reading(trial, found[word]) is None]
        if blind:
            count = "1 trial" if len(blind) == 1 else f"{len(blind)} trials"
            said.append(
                f"{metrics.metric(found[word]).label} is unknown for {count}, "
                "which got the worst gain of the others."
            )
    return said


def why_not(study: Study, winner: Trial, other: Trial, scores: dict[str, float]) -> str:
    if failures(other, study.priorities.limits):
        return violation(other, study.priorities.limits)
    lead, spread = utility.lead(study, winner, other)
    behind = scores[winner.id] - scores[other.id]
    points = f"utility {_signed(scores[other.id])} against {_signed(scores[winner.id])}"
    if abs(behind) <= SAME:
        return f"As good as the recommended one: {points}; the recommended one was measured first."
    main = _largest_loss(study, winner, other)
    if spread is None:
        return f"Lower {points}{main}; too few runs to prove the difference."
    if abs(lead) <= spread:
        return f"Not proven better or worse: {points}{main}, but the intervals overlap."
    return f"Lower {points}{main}."


def _largest_loss(study: Study, winner: Trial, other: Trial) -> str:
    """The word on which `other` loses most to the winner, with both numbers."""
    losses = []
    for word, name in utility.axes(study):
        one = utility.gain(word, name, other, winner)
        if one is not None and one.gain < -SAME:
            losses.append((study.priorities.weight(word) * one.gain, name))
    if not losses:
        return ""
    _, name = min(losses)
    ours, theirs = known(other, name), known(winner, name)
    label = metrics.metric(name).label
    numbers = f"{shown.of_metric(name, ours)} against {shown.of_metric(name, theirs)}"
    return f", mostly by {label} ({numbers})"


def violation(trial: Trial, limits: tuple[Limit, ...]) -> str:
    parts = []
    for limit in failures(trial, limits):
        value = known(trial, limit.metric)
        if value is None:
            why = trial.metric(limit.metric)
            reason = f" ({why.method})" if why is not None and why.method else ""
            parts.append(f"{limit}: the value is unknown{reason}, and unknown never passes")
        else:
            parts.append(f"{limit}: it has {shown.of_metric(limit.metric, value)}")
    return f"Violates {'; '.join(parts)}."


def nothing_passes(done: tuple[Trial, ...], study: Study) -> tuple[str, ...]:
    """Which limit nothing passed, with the nearest value; or that no trial passes all of them at
    once.
    """
    limits = study.priorities.limits
    said = []
    for limit in limits:
        if any(limit.passes(known(trial, limit.metric)) for trial in done):
            continue
        values = [
            (value, trial) for trial in done if (value := known(trial, limit.metric)) is not None
        ]
        if not values:
            said.append(
                f"No trial passes {limit}: {metrics.metric(limit.metric).label} "
                "is unknown for all of them."
            )
            continue
        chosen = min if limit.relation == "<=" else max
        nearest, trial = chosen(values, key=lambda pair: pair[0])
        said.append(
            f"No trial passes {limit}: the nearest is "
            f"{shown.of_metric(limit.metric, nearest)} ({trial.plan.title})."
        )
    if said:
        return tuple(said)
    fewest = min(done, key=lambda trial: len(failures(trial, limits)))
    missed = ", ".join(str(limit) for limit in failures(fewest, limits))
    return (
        f"No trial passes all {len(limits)} limits at once: {fewest.plan.title} "
        f"comes nearest and misses {missed}.",
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}"
