"""Accuracy of image classifiers, item by item with the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.measure.quality.text import by_definition
from core.measurement import Measurement
from core.metrics import metric
from core.statistics.proportions import wilson

if TYPE_CHECKING:
    import torch

# Images classified at once: activations of a whole file would not fit.
GROUP = 1024


def image_quality(
    engine: Any,
    baseline: Any | None,
    images: torch.Tensor,
    labels: torch.Tensor,
    name: str = "held-out digits",
) -> list[Measurement]:
    """Accuracy (samples are 0 or 1 per image; Wilson interval), agreement with the baseline, and
    flips.
    """
    chosen = _classes(engine, images)
    reference = chosen if baseline is None else _classes(baseline, images)
    how = f"{len(labels)} {name}"
    hits, base_hits = (chosen == labels).tolist(), (reference == labels).tolist()
    measurements = shares("accuracy", hits, base_hits if baseline is not None else None, how)
    if baseline is None:
        return [*measurements, by_definition("top1_agreement", how)]
    same = (chosen == reference).tolist()
    return [*measurements, share("top1_agreement", same, how, (True,) * len(same))]


def _classes(engine: Any, images: torch.Tensor) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        return torch.cat([engine(part).argmax(-1) for part in images.split(GROUP)])


def shares(
    name: str, hits: Sequence[bool], base: Sequence[bool] | None, how: str
) -> list[Measurement]:
    """The share of `hits` with the baseline's items beside them, and the flips between both.

    `base` None means that the model is the baseline, which flips nothing by definition.
    """
    if base is None:
        return [share(name, hits, how), by_definition("flips", how)]
    turned = [ours != theirs for ours, theirs in zip(hits, base, strict=True)]
    return [
        share(name, hits, how, base),
        share("flips", turned, how, (False,) * len(turned)),
    ]


def share(name: str, hits: Sequence[bool], how: str, reference: Sequence[bool] = ()) -> Measurement:
    """A share of 0/1 items with Wilson's interval."""
    successes, n = sum(map(bool, hits)), len(hits)
    return Measurement(
        name,
        tuple(map(float, hits)),
        metric(name).unit,
        "measured",
        how,
        pooled=successes / n,
        bounds=wilson(successes, n),
        reference=tuple(map(float, reference)),
    )
