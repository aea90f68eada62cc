"""The unchanged model read by a second, equally correct program: how far both lie apart.

The first program reads a passage at once, the second in small parts behind a cache: the same sums
in another order, through the kernels that serve a few tokens where the first takes those for many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core import metrics
from core.measurement import Measurement, bootstrap_mean, unavailable

if TYPE_CHECKING:
    import torch

# Tokens of one part: what the engine's kernels for few tokens take at once.
PART = 16
# Programs this far apart are not equally correct: a floor from them would hide real losses.
MOST_NATS = 0.02
FLOOR_METRICS = metrics.floors()
METHOD = f"the unchanged model against itself, read {PART} tokens at a time behind a cache"


class InParts:
    """A TextEngine of the same weights that reads `PART` tokens at a time."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.vocab_size = engine.vocab_size

    def new_cache(self, batch: int, capacity: int) -> Any:
        """See core.engine.protocol.TextEngine."""
        return self.engine.new_cache(batch, capacity)

    def forward(
        self, ids: torch.Tensor, cache: Any = None, last_only: bool = False
    ) -> torch.Tensor:
        """See core.engine.protocol.TextEngine."""
        import torch

        cache = self.new_cache(*ids.shape) if cache is None else cache
        parts = [self.engine.forward(part, cache, last_only) for part in ids.split(PART, dim=1)]
        return parts[-1] if last_only else torch.cat(parts, dim=1)


def floors(
    divergence: np.ndarray, agreed: np.ndarray, tokens: np.ndarray, how: str
) -> list[Measurement]:
    """`kl_floor_nats` and `agreement_floor` from sums over each passage, float [passages]: KL in
    nats, equal first choices, scored tokens. One sample a passage, as for the metrics themselves.
    """
    how = f"{how}; {METHOD}"
    nats = np.maximum(divergence, 0.0) / tokens.mean()
    if nats.mean() > MOST_NATS:
        why = (
            f"{METHOD}, differs by {nats.mean():.3g} nats: more than rounding does, so one of the"
            " two programs is not this model and no floor is measured"
        )
        return [unavailable(name, metrics.metric(name).unit, why) for name in FLOOR_METRICS]

    def mean(name: str, samples: np.ndarray, pooled: float) -> Measurement:
        bounds = bootstrap_mean(samples) if len(samples) > 1 else None
        return Measurement(
            name,
            tuple(samples.tolist()),
            metrics.metric(name).unit,
            "measured",
            how,
            pooled=pooled,
            bounds=bounds,
        )

    return [
        mean("kl_floor_nats", nats, float(nats.mean())),
        mean("agreement_floor", agreed / tokens, float(agreed.sum() / tokens.sum())),
    ]
