"""Why a trial is recommended and why another is not, in sentences with numbers. Chooses nothing.

The numbers are those of the trials; the comparison is the utility's (core.verdict.utility).
"""

from __future__ import annotations

from core import format as shown
from core import metrics
from core.study import Study, Trial
from core.verdict import utility
from core.verdict.against import against
from core.verdict.comparison import UNPROJECTED
from core.verdict.doubt import Doubt, headline, signed
from core.verdict.limits import failures, known, label_of, limit_words, violation

# Below this share of a doubling two gains read the same.
SAME = 0.005


def no_baseline(study: Study) -> str:
    baseline = study.baseline
    if baseline is None:
        return "Nothing can be recommended: the study has no baseline to compare with."
    reason = f" ({baseline.reason})" if baseline.reason else ""
    return (
        f"Nothing can be recommended yet: the baseline is {baseline.state}{reason}, "
        "and every gain is a ratio to it."
    )


def because(
    study: Study, winner: Trial, baseline: Trial, scores: dict[str, float], doubt: Doubt
) -> tuple[str, ...]:
    """How sure the choice is, what the winner gains and costs, one sentence a word, then the
    limits, then what is not known.
    """
    sentences = [headline(study, winner, scores, doubt)]
    if not winner.is_baseline:
        sentences += [
            sentence(metric_name, winner, baseline)
            for metric_name in _told(study, winner, baseline)
        ]
    for limit in study.priorities.limits:
        value = known(winner, limit.metric)
        sentences.append(f"It passes {limit_words(limit)}: {shown.of_metric(limit.metric, value)}.")
    sentences += _unknown(study)
    sentences += _unmeasured(winner)
    return tuple(sentences)


def _unmeasured(winner: Trial) -> list[str]:
    """Which of the winner's numbers were not measured, each once and by its label, in one sentence
    an origin."""
    sentences = []
    for origin in ("projected", "estimated"):
        labels = dict.fromkeys(
            _listed(row.metric)
            for row in winner.measurements
            if row.origin == origin and not row.condition
        )
        if labels:
            sentences.append(f"Not measured but {origin}: {', '.join(labels)}.")
    return sentences


def _listed(name: str) -> str:
    """A metric's label as one item of a list: `latency (p95)`."""
    head, _, rest = label_of(name).partition(", ")
    return f"{head} ({rest})" if rest else head


def _told(study: Study, winner: Trial, baseline: Trial) -> list[str]:
    """Metrics worth a sentence: those that decided, then any other of the user's words that got
    worse.
    """
    decided = [name for _, name in utility.axes(study)]
    words = {word for word, _ in utility.axes(study)}
    others = [
        metric.name
        for metric in metrics.METRICS
        if metric.priority in words
        and metric.name not in decided
        and against(winner, baseline, metric.name).verdict == "worse"
    ]
    return decided + others


def sentence(name: str, trial: Trial, baseline: Trial) -> str:
    """One metric of `trial` against the baseline with the judge's verdict, as `Time per output
    token: 1.92x faster (12.1 ms -> 6.30 ms).`
    """
    label = metrics.metric(name).label
    before, after = known(baseline, name), known(trial, name)
    if after is None:
        return f"{label}: unknown for this trial, so it got no credit for it."
    if before is None:
        return f"{label}: {shown.of_metric(name, after)}; the baseline's is unknown."
    numbers = f"({shown.of_metric(name, before)} → {shown.of_metric(name, after)})"
    judgement = against(trial, baseline, name)
    if judgement.verdict == "not comparable":
        return f"{label}: not comparable, {judgement.why}."
    if judgement.verdict == "same":
        return f"{label}: unchanged ({shown.of_metric(name, after)})."
    if judgement.verdict == "within noise":
        return f"{label}: no proven change {numbers}."
    if judgement.verdict == UNPROJECTED:
        return f"{label}: {UNPROJECTED} {numbers}."
    if judgement.verdict == "too few runs":
        return f"{label}: too few runs to say {numbers}."
    return f"{label}: {_by_how_much(name, judgement.ratio, judgement.verdict)} {numbers}."


def _by_how_much(name: str, ratio: float | None, verdict: str) -> str:
    """`1.92x faster`, `2.10x larger`; without a ratio, and for quality, the verdict."""
    metric = metrics.metric(name)
    words = {
        "latency": ("slower", "faster"),
        "throughput": ("more", "less"),
        "size": ("larger", "smaller"),
        "energy": ("more energy", "less energy"),
        "cost": ("dearer", "cheaper"),
    }
    if metric.priority not in words or ratio is None or ratio <= 0:
        return verdict
    up, down = words[metric.priority]
    return f"{shown.ratio(max(ratio, 1 / ratio))} {up if ratio > 1 else down}"


def _unknown(study: Study) -> list[str]:
    """A sentence for every weighted word that nothing could be judged by, and for partial
    knowledge.
    """
    axes = dict(utility.axes(study))
    sentences = []
    for word in metrics.PRIORITIES:
        if study.priorities.weight(word) <= 0:
            continue
        if word not in axes:
            sentences.append(f"Nothing is known about {word} here, so its weight did not count.")
            continue
        baseline = next(trial for trial in study.done() if trial.is_baseline)
        blind = [
            trial
            for trial in study.done()
            if utility.gain(word, axes[word], trial, baseline) is None
        ]
        if blind:
            count = "1 trial" if len(blind) == 1 else f"{len(blind)} trials"
            sentences.append(
                f"{metrics.metric(axes[word]).label} cannot be compared for {count}, "
                "which got the worst gain of the others."
            )
    return sentences


def why_not(study: Study, winner: Trial, other: Trial, scores: dict[str, float]) -> str:
    """Why `other` is not the choice, with the points it lacks and the metric that costs it most."""
    if failures(other, study.priorities.limits):
        return violation(other, study.priorities.limits)
    lead, spread = utility.lead(study, winner, other)
    behind = scores[winner.id] - scores[other.id]
    points = f"{signed(scores[other.id])} points against {signed(scores[winner.id])}"
    if abs(behind) <= SAME:
        name = winner.plan.title
        return f"As good as {name}: {points}; {name} was measured first."
    main = _largest_loss(study, winner, other)
    if spread is None:
        return f"Scores lower, {points}{main}; too few runs to prove the difference."
    if abs(lead) <= spread:
        return f"Not proven better or worse: {points}{main}, but the intervals overlap."
    return f"Scores lower, {points}{main}."


def _largest_loss(study: Study, winner: Trial, other: Trial) -> str:
    """The word on which `other` loses most to the winner, with both numbers."""
    losses = []
    for word, name in utility.axes(study):
        gain = utility.gain(word, name, other, winner)
        if gain is not None and gain.gain < -SAME:
            losses.append((study.priorities.weight(word) * gain.gain, name))
    if not losses:
        return ""
    _, name = min(losses)
    ours, theirs = known(other, name), known(winner, name)
    label = metrics.metric(name).label
    numbers = f"{shown.of_metric(name, ours)} against {shown.of_metric(name, theirs)}"
    return f", mostly by {label} ({numbers})"
