"""What would change a choice, in sentences; the numbers are firmness.py's."""

from __future__ import annotations

from core import format as shown
from core.study import Study, Trial
from core.verdict.limits import label_of
from core.verdict.robust.firmness import LimitFlip, Robustness, WeightFlip

# Flips further away than this factor of a word's weight, or of 1 for one that weighs nothing, are
# told as none: nobody means them.
FAR = 10.0
# So many of the nearest weights are told.
TOLD = 3


def sentences(study: Study, winner: Trial, firm: Robustness) -> tuple[str, ...]:
    """In how many weightings the winner stays, and the nearest weights and limits at which it does
    not.
    """
    if len(firm.shares) < 2 or not firm.words:
        return ()
    share = _share(firm.share(winner.id))
    told = [
        f"By the measured values it is best in {share} of all weightings of {_listed(firm.words)}."
    ]
    near = sorted(filter(_is_near, firm.weight_flips), key=lambda flip: abs(flip.at - flip.now))
    if near:
        told.append(f"Other weights would change the choice: {_weights(study, near[:TOLD])}.")
    else:
        told.append("No weight that one would give to a single priority changes the choice.")
    told += [_limit(study, flip) for flip in firm.limit_flips]
    return tuple(told)


def _is_near(flip: WeightFlip) -> bool:
    return flip.at <= FAR * (flip.now or 1.0)


def _weights(study: Study, flips: list[WeightFlip]) -> str:
    parts = []
    for flip in flips:
        side = "from {} on" if flip.rising else "down to {}"
        at = side.format(shown.plain(flip.at, 2))
        parts.append(
            f"{flip.word} {at} (now {shown.plain(flip.now)}): {_title(study, flip.trial_id)}"
        )
    return "; ".join(parts)


def _limit(study: Study, flip: LimitFlip) -> str:
    name, value = label_of(flip.limit.metric), shown.of_metric(flip.limit.metric, flip.at)
    relation = "at most" if flip.limit.relation == "<=" else "at least"
    if not flip.tightened:
        return f"With {name} of {relation} {value}, {_title(study, flip.trial_id)} would lead."
    beyond = "below" if flip.limit.relation == "<=" else "above"
    if flip.trial_id is None:
        return f"With a limit of {name} {beyond} {value} nothing that was measured would pass."
    title = _title(study, flip.trial_id)
    return f"With a limit of {name} {beyond} {value}, {title} would lead."


def _title(study: Study, trial_id: str | None) -> str:
    trial = study.trial(trial_id) if trial_id else None
    if trial is None:
        return "no trial"
    return "the unchanged model" if trial.is_baseline else trial.plan.title


def _share(share: float) -> str:
    """`63 %`; what is not quite all is not called 100 %."""
    if 0.99 < share < 1.0:
        return "more than 99 %"
    return "less than 1 %" if 0.0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


def _listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
