"""The one table of metrics: name with its unit, direction, group and label. Everything that shows a
number asks here.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import BadInput


@dataclass(frozen=True)
class Metric:
    """`better` is `lower` or `higher`; `priority` is the user's word that weighs it (or empty)."""

    name: str
    label: str
    unit: str
    better: str
    group: str
    priority: str
    meaning: str


METRICS = (
    Metric(
        "ttft_s",
        "Time to first token",
        "s",
        "lower",
        "latency",
        "latency",
        "Seconds from handing over the prompt until the first new token exists.",
    ),
    Metric(
        "tpot_s",
        "Time per output token",
        "s",
        "lower",
        "latency",
        "latency",
        "Seconds between two new tokens of one sequence after the first.",
    ),
    Metric(
        "latency_s",
        "Latency, end to end",
        "s",
        "lower",
        "latency",
        "latency",
        "Median seconds for one whole request (prompt and output) or one image batch, waiting for"
        " its turn included.",
    ),
    Metric(
        "latency_p95_s",
        "Latency, p95",
        "s",
        "lower",
        "latency",
        "latency",
        "95th percentile of the seconds for one whole request (prompt and output)"
        " or one image batch.",
    ),
    Metric(
        "latency_p99_s",
        "Latency, p99",
        "s",
        "lower",
        "latency",
        "latency",
        "99th percentile of the seconds for one whole request; only where at least 100 were timed.",
    ),
    Metric(
        "tokens_per_s",
        "Throughput",
        "1/s",
        "higher",
        "throughput",
        "throughput",
        "New tokens per second over all sequences of the batch, prompt reading included.",
    ),
    Metric(
        "examples_per_s",
        "Throughput",
        "1/s",
        "higher",
        "throughput",
        "throughput",
        "Images classified per second at the stated batch.",
    ),
    Metric(
        "model_bytes",
        "Model size",
        "B",
        "lower",
        "size",
        "size",
        "Bytes of all weights as they lie in memory, scales and tables included.",
    ),
    Metric(
        "peak_bytes",
        "Peak memory",
        "B",
        "lower",
        "size",
        "size",
        "Highest resident memory while the model served, less what the process held before the"
        " model was loaded.",
    ),
    Metric(
        "energy_j_per_token",
        "Energy per token",
        "J",
        "lower",
        "energy",
        "energy",
        "Joules per new token (per image for classifiers), idle power subtracted; unavailable where"
        " nothing can be read.",
    ),
    Metric(
        "usd_per_mtok",
        "Cost per million tokens",
        "$",
        "lower",
        "cost",
        "cost",
        "Dollars of rent per million new tokens at the measured or projected throughput.",
    ),
    Metric(
        "perplexity",
        "Perplexity",
        "",
        "lower",
        "quality",
        "quality",
        "exp of the mean negative log-likelihood per token on held-out text.",
    ),
    Metric(
        "nats_per_byte",
        "Nats per byte",
        "nat/B",
        "lower",
        "quality",
        "quality",
        "Negative log-likelihood per byte of held-out text: comparable between tokenizers.",
    ),
    Metric(
        "kl_nats",
        "KL to baseline",
        "nat",
        "lower",
        "quality",
        "quality",
        "Mean KL(baseline || candidate) per token on the same held-out tokens.",
    ),
    Metric(
        "top1_agreement",
        "Top-1 agreement",
        "",
        "higher",
        "quality",
        "quality",
        "Share of held-out positions where candidate and baseline would choose the same token"
        " or class.",
    ),
    Metric(
        "accuracy",
        "Accuracy",
        "",
        "higher",
        "quality",
        "quality",
        "Share of held-out examples classified correctly.",
    ),
    Metric(
        "task_accuracy",
        "Task accuracy",
        "",
        "higher",
        "quality",
        "quality",
        "Share of the user's own tasks answered rightly: choices ranked by their summed"
        " log-likelihood, or exact matches of greedy text.",
    ),
    Metric(
        "task_accuracy_norm",
        "Task accuracy, by length",
        "",
        "higher",
        "quality",
        "quality",
        "Share of multiple-choice tasks answered rightly when each choice's log-likelihood is"
        " divided by its bytes.",
    ),
    Metric(
        "flips",
        "Flips",
        "",
        "lower",
        "quality",
        "quality",
        "Share of tasks or images that were right in the baseline and are wrong now, or the other"
        " way round (Dutta et al. 2024).",
    ),
    Metric(
        "accepted_per_step",
        "Accepted tokens per step",
        "",
        "higher",
        "decoding",
        "",
        "Tokens that one verification step of speculative decoding yields, the bonus token"
        " included.",
    ),
    Metric(
        "cpu_wait_share",
        "Waiting for a core",
        "",
        "lower",
        "environment",
        "",
        "Share of a timed round in which our threads stood ready while another process or the"
        " host had the core; rounds above 5 % are marked, never dropped.",
    ),
    Metric(
        "prepare_s",
        "Preparation",
        "s",
        "lower",
        "preparation",
        "",
        "Seconds that loading and applying the techniques took.",
    ),
)

BY_NAME = {metric.name: metric for metric in METRICS}
PRIORITIES = ("latency", "throughput", "size", "energy", "quality", "cost")


def metric(name: str) -> Metric:
    """The metric called `name`; BadInput names the known ones."""
    if name not in BY_NAME:
        raise BadInput(f"unknown metric {name!r}; known metrics: {', '.join(sorted(BY_NAME))}")
    return BY_NAME[name]
