"""Quality of the very artefact that was timed, on pinned held-out data, paired with the baseline
token by token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from core.data import Windows
from core.measurement import Measurement, bootstrap_mean, bootstrap_ratio, unavailable
from core.metrics import metric

if TYPE_CHECKING:
    import torch

TEXT_METRICS = ("perplexity", "nats_per_byte", "kl_nats", "top1_agreement")


def text_quality(engine: Any, baseline: Any | None, windows: Windows) -> list[Measurement]:
    """Perplexity, nats per byte, KL(baseline || candidate) and top-1 agreement over `windows`.

    `baseline` None means that `engine` is the baseline: it agrees with itself by definition.
    Intervals are bootstrapped over windows, which are the independent units; samples are the
    windows' own values. Nats per byte are all nats over all bytes, document starts included.
    """
    import torch

    nats, divergence, agreement = [], [], []
    with torch.inference_mode():
        for row in windows.ids:
            logits = log_probabilities(engine, row)
            nats.append(-logits.gather(-1, row[1:, None].to(logits.device)).mean().item())
            if baseline is None:
                continue
            reference = log_probabilities(baseline, row)
            divergence.append((reference.exp() * (reference - logits)).sum(-1).mean().item())
            agreement.append((reference.argmax(-1) == logits.argmax(-1)).float().mean().item())
    values, row_bytes = np.array(nats), np.array(windows.row_bytes, dtype=float)
    row_nats = values * (windows.ids.shape[1] - 1)
    low, high = bootstrap_mean(values)
    mean = float(values.mean())
    how = windows.name
    found = [
        Measurement(
            "perplexity",
            tuple(np.exp(values).tolist()),
            "",
            "measured",
            how,
            pooled=math.exp(mean),
            bounds=(math.exp(low), math.exp(high)),
        ),
        Measurement(
            "nats_per_byte",
            tuple((row_nats / row_bytes).tolist()),
            "nat/B",
            "measured",
            how,
            pooled=float(row_nats.sum() / row_bytes.sum()),
            bounds=bootstrap_ratio(row_nats, row_bytes),
        ),
    ]
    if baseline is None:
        own = how + "; the baseline against itself, by definition"
        found.append(
            Measurement("kl_nats", (0.0,), "nat", "measured", own, pooled=0.0, bounds=(0.0, 0.0))
        )
        found.append(_agrees_with_itself(how))
    else:
        found.append(_mean("kl_nats", np.maximum(divergence, 0.0), how))
        found.append(_mean("top1_agreement", np.array(agreement), how))
    return found


def log_probabilities(engine: Any, row: torch.Tensor) -> torch.Tensor:
    """float32 [T, V]: log p of the next token at every position of `row` int64 [T + 1], the last
    one excluded.
    """
    import torch

    logits = engine.forward(row[None, :-1])[0]
    return torch.log_softmax(logits.float(), dim=-1)


def _mean(name: str, values: np.ndarray, how: str) -> Measurement:
    return Measurement(
        name,
        tuple(values.tolist()),
        metric(name).unit,
        "measured",
        how,
        pooled=float(values.mean()),
        bounds=bootstrap_mean(values),
    )


def _agrees_with_itself(how: str) -> Measurement:
    own = how + "; the baseline against itself, by definition"
    return Measurement("top1_agreement", (1.0,), "", "measured", own, pooled=1.0, bounds=(1.0, 1.0))


def no_quality(why: str) -> list[Measurement]:
    """Every text quality metric as unavailable, with the reason."""
    return [unavailable(name, metric(name).unit, why) for name in TEXT_METRICS]


def image_quality(
    engine: Any, baseline: Any | None, images: torch.Tensor, labels: torch.Tensor
) -> list[Measurement]:
    """Accuracy (samples are 0 or 1 per image; Wilson interval) and agreement with the baseline."""
    import torch

    with torch.inference_mode():
        chosen = engine(images).argmax(-1)
        reference = chosen if baseline is None else baseline(images).argmax(-1)
    how = f"{len(labels)} held-out digits"
    found = [_share("accuracy", (chosen == labels).float().tolist(), how)]
    if baseline is None:
        return [*found, _agrees_with_itself(how)]
    return [*found, _share("top1_agreement", (chosen == reference).float().tolist(), how)]


def _share(name: str, hits: list[float], how: str) -> Measurement:
    successes, n = int(sum(hits)), len(hits)
    return Measurement(
        name,
        tuple(hits),
        "",
        "measured",
        how,
        pooled=successes / n,
        bounds=wilson(successes, n),
    )


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927)."""
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
