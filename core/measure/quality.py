"""Quality of the very artefact that was timed, on pinned held-out data, paired with the baseline
token by token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from core.data import Windows
from core.measurement import Measurement, bootstrap_mean, unavailable
from core.metrics import metric

if TYPE_CHECKING:
    import torch

TEXT_METRICS = ("perplexity", "nats_per_byte", "kl_nats", "top1_agreement")


def text_quality(engine: Any, baseline: Any | None, windows: Windows) -> list[Measurement]:
    """Perplexity, nats per byte, KL(baseline || candidate) and top-1 agreement over `windows`.

    `baseline` None means that `engine` is the baseline: it agrees with itself by definition.
    Intervals are bootstrapped over windows, which are the independent units; samples are the
    windows' own values.
    """
    import torch

    nats, divergence, agreement = [], [], []
    with torch.inference_mode():
        for row in windows.ids:
            logits = log_probabilities(engine, row)
            nats.append(-logits.gather(-1, row[1:, None]).mean().item())
            if baseline is None:
                continue
            reference = log_probabilities(baseline, row)
            divergence.append((reference.exp() * (reference - logits)).sum(-1).mean().item())
            agreement.append((reference.argmax(-1) == logits.argmax(-1)).float().mean().item())
    tokens = windows.ids[:, 1:].numel()
    values = np.array(nats)
    low, high = bootstrap_mean(values)
    mean = float(values.mean())
    how = windows.name
    per_byte = tokens / windows.text_bytes
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
            tuple((values * per_byte).tolist()),
            "nat/B",
            "measured",
            how,
            pooled=mean * per_byte,
            bounds=(low * per_byte, high * per_byte),
        ),
    ]
    if baseline is None:
        own = how + "; the baseline against itself, by definition"
        found.append(
            Measurement("kl_nats", (0.0,), "nat", "measured", own, pooled=0.0, bounds=(0.0, 0.0))
        )
        found.append(
            Measurement(
                "top1_agreement", (1.0,), "", "measured", own, pooled=1.0, bounds=(1.0, 1.0)
            )
        )
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
    right = (chosen == labels).float().tolist()
    same = (chosen == reference).float().tolist()
    return [
        Measurement(
            name,
            tuple(samples),
            "",
            "measured",
            how,
            pooled=sum(samples) / len(samples),
            bounds=wilson(int(sum(samples)), len(samples)),
        )
        for name, samples in (("accuracy", right), ("top1_agreement", same))
    ]


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927)."""
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
