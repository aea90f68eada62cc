"""The one table of metrics: name with its unit, direction, group and label. Everything that shows a
number asks here.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import BadInput


@dataclass(frozen=True)
class Metric:
    """`better` is `lower` or `higher`; `priority` is the user's word that weighs it (or empty);
    `quantile` is what the value is of its samples, the median unless it is a tail; `short` is the
    label where a column is as narrow as a number.
    """

    name: str
    label: str
    unit: str
    better: str
    group: str
    priority: str
    meaning: str
    quantile: float = 0.5
    short: str = ""


METRICS = (
    Metric(
        "ttft_s",
        "Time to first token",
        "s",
        "lower",
        "latency",
        "latency",
        "Seconds from handing over the prompt until the first new token exists.",
        short="TTFT",
    ),
    Metric(
        "tpot_s",
        "Time per output token",
        "s",
        "lower",
        "latency",
        "latency",
        "Seconds between two new tokens of one sequence after the first.",
        short="TPOT",
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
        short="Latency",
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
        0.95,
        short="p95",
    ),
    Metric(
        "latency_p99_s",
        "Latency, p99",
        "s",
        "lower",
        "latency",
        "latency",
        "99th percentile of the seconds for one whole request; only where at least 100 were timed.",
        0.99,
        short="p99",
    ),
    Metric(
        "tokens_per_s",
        "Throughput",
        "1/s",
        "higher",
        "throughput",
        "throughput",
        "New tokens per second over all sequences of the batch, prompt reading included.",
        short="Tokens/s",
    ),
    Metric(
        "examples_per_s",
        "Throughput",
        "1/s",
        "higher",
        "throughput",
        "throughput",
        "Images classified per second at the stated batch.",
        short="Images/s",
    ),
    Metric(
        "model_bytes",
        "Model size",
        "B",
        "lower",
        "size",
        "size",
        "Bytes of all weights as they lie in memory, scales and tables included.",
        short="Size",
    ),
    Metric(
        "peak_bytes",
        "Peak memory",
        "B",
        "lower",
        "size",
        "size",
        "Highest resident memory while the model served one round, less what the process held"
        " before the model was loaded; freed memory does not count.",
        short="Peak",
    ),
    Metric(
        "memory_bytes",
        "Memory of model and work",
        "B",
        "lower",
        "size",
        "",
        "Bytes of weights, KV cache and workspace at the peak of one round, counted by tensor; its"
        " parts, and what the libraries hold beside them, stand under conditions and add up to the"
        " peak.",
    ),
    Metric(
        "kv_bytes",
        "KV cache",
        "B",
        "lower",
        "size",
        "",
        "Bytes of the keys and values of one group of sequences at its full length, a draft's"
        " included; the method says how many one token takes.",
    ),
    Metric(
        "device_peak_bytes",
        "Peak of device memory",
        "B",
        "lower",
        "size",
        "",
        "Highest memory that tensors held on the GPU while one round was served, as torch's"
        " allocator counts it.",
    ),
    Metric(
        "disk_bytes",
        "Size on disk",
        "B",
        "lower",
        "size",
        "",
        "Bytes of the files of the artefact: weights, configuration and tokenizer.",
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
        short="Energy",
    ),
    Metric(
        "energy_prefill_j_per_token",
        "Energy per prompt token",
        "J",
        "lower",
        "energy",
        "",
        "Joules of reading the prompts, the first new token included, per prompt token; idle power"
        " subtracted.",
    ),
    Metric(
        "energy_decode_j_per_token",
        "Energy per decoded token",
        "J",
        "lower",
        "energy",
        "",
        "Joules of the steps after the first new token, per token that they gave; idle power"
        " subtracted.",
    ),
    Metric(
        "usd_per_mtok",
        "Cost per million tokens",
        "$",
        "lower",
        "cost",
        "cost",
        "Dollars of rent per million new tokens at the measured or projected throughput.",
        short="Cost",
    ),
    Metric(
        "perplexity",
        "Perplexity",
        "",
        "lower",
        "quality",
        "quality",
        "exp of the mean negative log-likelihood per token on held-out text.",
        short="PPL",
    ),
    Metric(
        "nats_per_byte",
        "Nats per byte",
        "nat/B",
        "lower",
        "quality",
        "quality",
        "Negative log-likelihood per byte of held-out text: comparable between tokenizers.",
        short="Nats/B",
    ),
    Metric(
        "kl_nats",
        "KL to baseline",
        "nat",
        "lower",
        "quality",
        "quality",
        "Mean KL(baseline || candidate) per token on the same held-out tokens.",
        short="KL",
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
        short="Agree",
    ),
    Metric(
        "kl_floor_nats",
        "KL floor",
        "nat",
        "lower",
        "quality",
        "",
        "Mean KL per token between two equally correct programs of the unchanged model on the same"
        " held-out tokens: rounding alone, so a smaller KL to baseline is no loss.",
    ),
    Metric(
        "agreement_floor",
        "Top-1 agreement, floor",
        "",
        "higher",
        "quality",
        "",
        "Share of held-out positions where two equally correct programs of the unchanged model"
        " would choose the same token: rounding alone, so a higher agreement is no loss.",
    ),
    Metric(
        "rounding_kl_nats",
        "KL of loading",
        "nat",
        "lower",
        "quality",
        "",
        "Mean KL(file || unchanged model) per token where a file's numbers cannot be computed with"
        " as they are stored: what is lost before any technique.",
    ),
    Metric(
        "accuracy",
        "Accuracy",
        "",
        "higher",
        "quality",
        "quality",
        "Share of held-out examples classified correctly.",
        short="Acc.",
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
        short="Accept",
    ),
    Metric(
        "ttft_p95_s",
        "Time to first token, p95",
        "s",
        "lower",
        "traffic",
        "",
        "95th percentile of the seconds from a request's arrival to its first token, waiting in the"
        " queue included.",
        0.95,
    ),
    Metric(
        "within_limits",
        "Requests within limits",
        "",
        "higher",
        "traffic",
        "",
        "Share of the requests that met the workload's limits on TTFT and TPOT: goodput over"
        " throughput (Zhong et al. 2024).",
    ),
    Metric(
        "batch_size",
        "Batch reached",
        "",
        "higher",
        "traffic",
        "",
        "Requests that a batch really held when it was taken from the queue.",
    ),
    Metric(
        "concurrency",
        "Requests at a time",
        "",
        "higher",
        "traffic",
        "",
        "Requests in flight in each timed round: as many as the workload asks for.",
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
        short="Prep.",
    ),
    Metric(
        "sensitivity_kl",
        "Sensitivity",
        "nat",
        "lower",
        "preparation",
        "",
        "KL per token, on calibration data, of the model with one matrix alone in so many bits:"
        " what automatic mixed precision chose by; the condition names matrix and format.",
    ),
    Metric(
        "chosen_bits",
        "Chosen precision",
        "bit",
        "lower",
        "preparation",
        "",
        "Bits of a matrix's codes that automatic mixed precision chose; 16 means left as it was.",
    ),
    Metric(
        "learning_items",
        "Learned from",
        "",
        "lower",
        "preparation",
        "",
        "Tokens, or images, that calibration or training read; the condition says which, and"
        " whether they are of your data, bundled, written by the model itself, or random.",
    ),
    Metric(
        "mbu",
        "Memory bandwidth used",
        "",
        "higher",
        "limit",
        "",
        "Share of this machine's reading bandwidth that decoding reaches: the weights and the KV"
        " cache that a step must read, over the time per token and the calibrated bandwidth (MBU).",
    ),
    Metric(
        "mfu",
        "Matrix peak used",
        "",
        "higher",
        "limit",
        "",
        "Share of this machine's matrix peak that reading the prompt reaches: its operations over"
        " the time to the first token and the calibrated peak of the format (MFU).",
    ),
)

BY_NAME = {metric.name: metric for metric in METRICS}
PRIORITIES = ("latency", "throughput", "size", "energy", "quality", "cost")


def metric(name: str) -> Metric:
    """The metric called `name`; BadInput names the known ones."""
    if name not in BY_NAME:
        raise BadInput(f"unknown metric {name!r}; known metrics: {', '.join(sorted(BY_NAME))}")
    return BY_NAME[name]
