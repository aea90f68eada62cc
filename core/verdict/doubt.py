"""How sure a choice is, in its first sentence: proven, not proven yet, or nothing to act on."""

from __future__ import annotations

from dataclasses import dataclass

from core.study import Study, Trial


@dataclass(frozen=True)
class Doubt:
    """How sure a choice is: P(best), whether that proves it, whether all trials were disturbed, the
    runners-up, and among how many trials was chosen."""

    p_best: float | None
    proven: bool
    disturbed: bool
    runners_up: tuple[Trial, ...]
    rivals: int


def headline(study: Study, winner: Trial, scores: dict[str, float], doubt: Doubt) -> str:
    """The choice and how far it can be trusted."""
    if winner.is_baseline:
        others = [trial for trial in study.done() if not trial.is_baseline]
        if not others:
            return (
                "The unchanged model is best for these priorities: no change has been measured yet."
            )
        choice = "The unchanged model scores best for these priorities"
    else:
        choice = (
            f"{winner.plan.title} scores {signed(scores[winner.id])} points against 0 for the "
            "unchanged model (1 point: twice as good on one priority)"
        )
    if doubt.rivals < 2:
        busy = " Every trial was disturbed by other work on the machine." if doubt.disturbed else ""
        return f"{choice}; it is the only trial that passes every limit.{busy}"
    if doubt.proven:
        return (
            f"{choice}, and is best in {_share(doubt.p_best)} of resamples of the measured pairs."
        )
    rivals = " and ".join(map(_title, doubt.runners_up))
    again = "Measure the leading trials again before you act on it."
    if doubt.disturbed:
        return (
            "No recommendation to act on yet: every trial was disturbed by other work on the "
            f"machine. So far {_lower(choice)}{_in_share(doubt)}. {again}"
        )
    if doubt.p_best is None:
        return (
            f"No recommendation to act on yet: too few runs to say how sure the choice is. So far "
            f"{_lower(choice)}. {again}"
        )
    return (
        f"Not proven yet: {_lower(choice)}, but it is best in only {_share(doubt.p_best)} of "
        f"resamples of the measured pairs; {rivals} {'come' if ' and ' in rivals else 'comes'} "
        f"close. {again}"
    )


def _title(trial: Trial) -> str:
    return "the unchanged model" if trial.is_baseline else trial.plan.title


def _in_share(doubt: Doubt) -> str:
    if doubt.p_best is None:
        return ""
    return f", best in {_share(doubt.p_best)} of resamples"


def _share(value: float | None) -> str:
    """A probability that never reads as certainty."""
    percent = 0.0 if value is None else 100 * value
    return "over 99 %" if percent > 99 else "under 1 %" if percent < 1 else f"{percent:.0f} %"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:] if text.startswith("The ") else text


def signed(value: float) -> str:
    """Points of utility: `+1.33`."""
    return f"{value:+.2f}"
