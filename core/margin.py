"""How much worse a quality metric may become, as the user said it, and whether a candidate keeps
to it.

The words are those of a non-inferiority trial: the margin is fixed beforehand, and the paired
interval of the difference is compared with it, not with 0.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from core import format, metrics
from core.errors import BadInput
from core.measurement import Measurement
from core.statistics.paired import MIN_WINDOWS, Paired, paired_interval

NON_INFERIOR, INFERIOR, UNDECIDED = "non-inferior", "inferior", "undecided"

_MARGIN = re.compile(r"^\s*([a-z0-9_]+)\s*=\s*([-+0-9.eE]+)\s*(%?)\s*$")
NAMES = tuple(metric.name for metric in metrics.METRICS if metric.takes_margin)


@dataclass(frozen=True)
class Margin:
    """The loss of `metric` that is accepted, above 0: in its unit, or as a share of the baseline
    (0.01: 1 %) when `relative`.
    """

    metric: str
    value: float
    relative: bool = False

    def __str__(self) -> str:
        shown = f"{self.value * 100:.12g}%" if self.relative else f"{self.value:.12g}"
        return f"{self.metric}={shown}"


def parse_margin(text: str) -> Margin:
    """Read `accuracy=0.01` or `nats_per_byte=1%`; BadInput names what is wrong."""
    match = _MARGIN.match(text)
    if match is None:
        raise BadInput(f"--margin {text!r} is not of the form metric=value or metric=value%")
    name, number, percent = match.groups()
    metric = metrics.metric(name)
    if not metric.takes_margin:
        raise BadInput(f"--margin {text!r}: a margin is for quality, one of {', '.join(NAMES)}")
    try:
        value = float(number)
    except ValueError:
        raise BadInput(f"--margin {text!r}: {number!r} is not a number") from None
    if not math.isfinite(value) or value <= 0:
        raise BadInput(f"--margin {text!r}: the accepted loss must be finite and above 0")
    if percent and metric.defined == 0:
        raise BadInput(f"--margin {text!r}: the baseline's {name} is 0, give the loss without %")
    if percent and value >= 100 and metric.better == "higher":
        raise BadInput(f"--margin {text!r} accepts any loss: give less than 100%")
    if not percent and metric.is_share and value >= 1:
        raise BadInput(f"--margin {text!r} accepts any loss: {name} lies between 0 and 1")
    return Margin(name, value / 100 if percent else value, bool(percent))


def parse_margins(texts: list[str]) -> tuple[Margin, ...]:
    """All margins of the command line; BadInput when one metric has two."""
    margins = tuple(parse_margin(text) for text in texts)
    names = [margin.metric for margin in margins]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"--margin gives {name} twice: give each metric one margin")
    return margins


def non_inferiority(
    metric: metrics.Metric, candidate: Measurement | None, margin: Margin
) -> tuple[str, str]:
    """(`non-inferior` | `inferior` | `undecided`, a sentence with the interval and the margin).

    Judged by the one-sided 97.5 % bounds of the paired difference (of the ratio, for a relative
    margin): non-inferior when even the worse bound loses less than the margin, inferior when even
    the better bound loses more. Pairs are `candidate.samples` with `candidate.reference`, so the
    baseline is the unchanged model in the candidate's own process.
    """
    label = metric.label
    if candidate is None or candidate.value is None:
        reason = f" ({candidate.method})" if candidate is not None and candidate.method else ""
        return UNDECIDED, f"{label} is not known here{reason}, so the margin decides nothing."
    if candidate.origin != "measured" or not candidate.reference:
        return UNDECIDED, f"{label} was not measured in pairs with the baseline: no verdict."
    paired = paired_interval(metric.name, candidate.samples, candidate.reference)
    if paired is None:
        return UNDECIDED, (
            f"{label} has {len(candidate.samples)} paired windows, at least {MIN_WINDOWS} are"
            " needed: use a longer text or a more thorough preset."
        )
    loss = _loss(metric, paired, margin)
    if loss is None:
        return UNDECIDED, f"{label} of the baseline is 0: give the margin without %."
    least, most = loss
    word = NON_INFERIOR if most < margin.value else INFERIOR if least > margin.value else UNDECIDED
    return word, f"{label} {_said(metric, paired, margin)}: {word}."


def _loss(metric: metrics.Metric, paired: Paired, margin: Margin) -> tuple[float, float] | None:
    """The least and the largest loss that the 95 % interval leaves possible, as the margin counts;
    negative where it gained.
    """
    if margin.relative:
        if paired.ratio_bounds is None:
            return None
        low, high = paired.ratio_bounds[0] - 1, paired.ratio_bounds[1] - 1
    else:
        low, high = paired.difference_bounds
    return (low, high) if metric.better == "lower" else (-high, -low)


def _said(metric: metrics.Metric, paired: Paired, margin: Margin) -> str:
    def shown(value: float) -> str:
        if margin.relative:
            return format.percent(value)
        return format.signed(value, metric.unit, metric.name)

    if margin.relative and paired.ratio is not None and paired.ratio_bounds is not None:
        value, low, high = paired.ratio - 1, paired.ratio_bounds[0] - 1, paired.ratio_bounds[1] - 1
    else:
        value, (low, high) = paired.difference, paired.difference_bounds
    fall = "rise" if metric.better == "lower" else "fall"
    return (
        f"changes by {shown(value)} ({shown(low)} to {shown(high)}, 95 % interval, paired over"
        f" {paired.n} {paired.unit}); a {fall} of {shown(margin.value).lstrip('+')} is accepted"
    )
