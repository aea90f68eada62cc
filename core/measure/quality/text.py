"""Perplexity, nats per byte, KL and agreement over passages of text, paired with the baseline token
by token.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from core.data.passages import Passage
from core.measure.quality.floor import InParts, floors
from core.measure.quality.scores import log_probabilities
from core.measurement import Measurement, bootstrap_mean, bootstrap_ratio, unavailable
from core.metrics import defined, is_defined, listed, metric

TEXT_METRICS = listed("text_quality")
# exp() of more nats per token is no number any more.
MAX_NATS = 700.0


class Text(Protocol):
    """Anything that comes in passages: core.data.passages.Windows and
    core.data.passages.Passages.
    """

    @property
    def passages(self) -> tuple[Passage, ...]:
        """What is scored."""

    @property
    def name(self) -> str:
        """Which text it is and how it was cut."""


def text_quality(engine: Any, baseline: Any | None, text: Text) -> list[Measurement]:
    """Perplexity, nats per byte, KL(baseline || candidate) and top-1 agreement over `text`.

    One sample a passage, `reference` holding the baseline's for the same passages; `baseline` None
    means that `engine` is the baseline, which agrees with itself by definition; what two correct
    programs of it differ by is measured instead, as `FLOOR_METRICS`. A sample is the
    passage's sum over the mean number of tokens (bytes) of a passage: the mean of the samples, for
    perplexity the exponential of their mean logarithm, is the value over all tokens. What a text
    begins with is context and counts nowhere (core.data.passages states the convention). Intervals
    are bootstrapped over passages, which are the independent units.
    """
    import torch

    rows = np.zeros((len(text.passages), 4))
    with torch.inference_mode():
        for number, passage in enumerate(text.passages):
            rows[number] = _sums(engine, baseline, passage)
    tokens = np.array([passage.count for passage in text.passages], dtype=float)
    sizes = np.array([passage.text_bytes for passage in text.passages], dtype=float)
    nats, base_nats, divergence, agreed = rows.T
    paired = baseline is not None
    measurements = [
        _perplexity(nats / tokens.mean(), base_nats / tokens.mean(), paired, text.name),
        _per_byte(nats, base_nats, sizes, paired, text.name),
    ]
    if not paired:
        own = [by_definition(name, text.name) for name in TEXT_METRICS if is_defined(name)]
        return [*measurements, *own, *floors(divergence, agreed, tokens, text.name)]
    divergence = np.maximum(divergence, 0.0) / tokens.mean()
    agreement = float(agreed.sum() / tokens.sum())
    return [
        *measurements,
        _mean("kl_nats", divergence, float(divergence.mean()), text.name),
        _mean("top1_agreement", agreed / tokens, agreement, text.name),
    ]


def _sums(engine: Any, baseline: Any | None, passage: Passage) -> tuple[float, ...]:
    """Over a passage's scored tokens: nats, the baseline's nats, KL, equal first choices. Without a
    baseline the last two compare a second program of `engine` with it.
    """
    if baseline is None:
        _, nats, divergence, agreed = _sums(InParts(engine), engine, passage)
        return nats, 0.0, divergence, agreed
    nats = base_nats = divergence = agreed = 0.0
    targets = passage.ids[len(passage.ids) - passage.scored :]
    counted = (~passage.starts()).double()
    others = log_probabilities(baseline, passage.ids, passage.scored)
    for ours in log_probabilities(engine, passage.ids, passage.scored):
        own, targets = targets[: len(ours), None].to(ours.device), targets[len(ours) :]
        weight, counted = counted[: len(ours)].to(ours.device), counted[len(ours) :]
        theirs = next(others)
        nats -= float(ours.gather(-1, own)[:, 0] @ weight)
        base_nats -= float(theirs.gather(-1, own)[:, 0] @ weight)
        divergence += float((theirs.exp() * (theirs - ours)).sum(-1) @ weight)
        agreed += float((theirs.argmax(-1) == ours.argmax(-1)).double() @ weight)
    return nats, base_nats, divergence, agreed


def _perplexity(nats: np.ndarray, base: np.ndarray, paired: bool, how: str) -> Measurement:
    if max(nats.max(), base.max()) > MAX_NATS:
        why = f"{nats.max():.4g} nats a token: too large a perplexity to write"
        return unavailable("perplexity", "", why)
    bounds = bootstrap_mean(nats) if len(nats) > 1 else None
    return Measurement(
        "perplexity",
        tuple(np.exp(nats).tolist()),
        "",
        "measured",
        how,
        pooled=math.exp(nats.mean()),
        bounds=None if bounds is None else (math.exp(bounds[0]), math.exp(bounds[1])),
        reference=tuple(np.exp(base).tolist()) if paired else (),
    )


def _per_byte(
    nats: np.ndarray, base: np.ndarray, sizes: np.ndarray, paired: bool, how: str
) -> Measurement:
    if sizes.sum() <= 0:
        return unavailable("nats_per_byte", "nat/B", "the scored tokens stand for no bytes of text")
    # With a window of no bytes a draw could have none at all.
    bounds = bootstrap_ratio(nats, sizes) if len(nats) > 1 and sizes.min() > 0 else None
    return Measurement(
        "nats_per_byte",
        tuple((nats / sizes.mean()).tolist()),
        "nat/B",
        "measured",
        how,
        pooled=float(nats.sum() / sizes.sum()),
        bounds=bounds,
        reference=tuple((base / sizes.mean()).tolist()) if paired else (),
    )


def _mean(name: str, values: np.ndarray, pooled: float, how: str) -> Measurement:
    return Measurement(
        name,
        tuple(values.tolist()),
        metric(name).unit,
        "measured",
        how,
        pooled=pooled,
        bounds=bootstrap_mean(values) if len(values) > 1 else None,
        reference=(defined(name),) * len(values),
    )


def by_definition(name: str, how: str) -> Measurement:
    """What the unchanged model has to itself."""
    value = defined(name)
    own = how + "; the baseline against itself, by definition"
    return Measurement(
        name,
        (value,),
        metric(name).unit,
        "measured",
        own,
        pooled=value,
        bounds=(value, value),
    )


def no_quality(why: str) -> list[Measurement]:
    """Every text quality metric as unavailable, with the reason."""
    return [unavailable(name, metric(name).unit, why) for name in TEXT_METRICS]
