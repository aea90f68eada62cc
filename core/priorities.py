"""What the user cares about: weights, hard limits and margins, as data. Scoring lives in
recommend.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from core import metrics
from core.errors import BadInput
from core.margin import Margin, parse_margins

_LIMIT = re.compile(r"^\s*([a-z0-9_]+)\s*(<=|>=)\s*([-+0-9.eE]+)\s*$")


@dataclass(frozen=True)
class Limit:
    """A hard limit such as `kl_nats<=0.05`; an unknown value never passes it."""

    metric: str
    relation: str  # <= or >=
    value: float

    def passes(self, value: float | None) -> bool:
        """Whether `value` is known and within the limit."""
        if value is None or not math.isfinite(value):
            return False
        return value <= self.value if self.relation == "<=" else value >= self.value

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.value:.12g}"


@dataclass(frozen=True)
class Priorities:
    """Weights by word (latency, throughput, size, energy, quality, cost), each >= 0, hard limits,
    and the losses of quality that are accepted.
    """

    weights: tuple[tuple[str, float], ...] = (
        ("latency", 1.0),
        ("throughput", 1.0),
        ("size", 1.0),
        ("energy", 0.0),
        ("quality", 1.0),
        ("cost", 0.0),
    )
    limits: tuple[Limit, ...] = ()
    margins: tuple[Margin, ...] = ()

    def weight(self, word: str) -> float:
        """The weight of a priority word; 0 when not given."""
        return dict(self.weights).get(word, 0.0)

    def margin(self, metric: str) -> Margin | None:
        """The margin of `metric`, or None when none was set."""
        return next((margin for margin in self.margins if margin.metric == metric), None)


def parse_limit(text: str) -> Limit:
    """Read `metric<=value`; BadInput names what is wrong, impossible limits included."""
    match = _LIMIT.match(text)
    if match is None:
        raise BadInput(f"--limit {text!r} is not of the form metric<=value or metric>=value")
    name, relation, number = match.groups()
    entry = metrics.metric(name)
    try:
        value = float(number)
    except ValueError:
        raise BadInput(f"--limit {text!r}: {number!r} is not a number") from None
    if not math.isfinite(value):
        raise BadInput(f"--limit {text!r}: the value must be finite")
    if relation == "<=" and value < 0:
        raise BadInput(f"--limit {text!r} can never hold: {entry.name} is never negative")
    if relation == ">=" and value > entry.most:
        raise BadInput(f"--limit {text!r} can never hold: {name} is at most {entry.most:g}")
    if relation == "<=" and value < entry.least:
        raise BadInput(f"--limit {text!r} can never hold: {name} is at least {entry.least:g}")
    return Limit(name, relation, value)


def parse_weight(text: str) -> tuple[str, float]:
    """Read `name=weight`; BadInput names the known words."""
    word, equals, number = text.partition("=")
    word = word.strip()
    if not equals or word not in metrics.PRIORITIES:
        raise BadInput(
            f"--priority {text!r}: use name=weight with name one of {', '.join(metrics.PRIORITIES)}"
        )
    try:
        weight = float(number)
    except ValueError:
        raise BadInput(f"--priority {text!r}: {number!r} is not a number") from None
    if not math.isfinite(weight) or weight < 0:
        raise BadInput(f"--priority {text!r}: a weight is a finite number of at least 0")
    return word, weight


def parse(weights: list[str], limits: list[str], margins: Sequence[str] = ()) -> Priorities:
    """Priorities from the command line's words; words not given get 0 once any is given."""
    read_margins = parse_margins(list(margins))
    read_limits = tuple(parse_limit(text) for text in limits)
    for limit in read_limits:
        for other in read_limits:
            if (
                limit.metric == other.metric
                and (limit.relation, other.relation) == ("<=", ">=")
                and limit.value < other.value
            ):
                raise BadInput(f"the limits {limit} and {other} exclude each other")
    if not weights:
        return Priorities(limits=read_limits, margins=read_margins)
    by_word = dict(parse_weight(text) for text in weights)
    if not any(by_word.values()):
        raise BadInput("--priority: at least one weight must be above 0")
    return Priorities(
        tuple((word, by_word.get(word, 0.0)) for word in metrics.PRIORITIES),
        read_limits,
        read_margins,
    )
