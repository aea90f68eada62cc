"""Metrics of the run itself: decoding, arriving requests, the machine, preparation and the share of
the limits.
"""

from __future__ import annotations

from core.metrics.metric import Metric, Places

# Why a metric of the machine gets no verdict.
_USE = "it says how the machine was used, not how good the plan is: judge by its times"
RUN = (
    Metric(
        "accepted_per_step", "Accepted tokens per step", "", "higher", "decoding", "",
        "Tokens that one verification step of speculative decoding yields, the bonus token"
        " included.",
        short="Accept", projected="carried",
        places=Places(trials_speed=7),
    ),
    Metric(
        "ttft_p95_s", "Time to first token, p95", "s", "lower", "traffic", "",
        "95th percentile of the seconds from a request's arrival to its first token, waiting in"
        " the queue included.",
        quantile=0.95,
    ),
    Metric(
        "within_limits", "Requests within limits", "", "higher", "traffic", "",
        "Share of the requests that met the workload's limits on TTFT and TPOT: goodput over"
        " throughput (Zhong et al. 2024).",
        shown_in="%", most=1.0,
    ),
    Metric(
        "batch_size", "Batch reached", "", "higher", "traffic", "",
        "Requests that a batch really held when it was taken from the queue.",
    ),
    Metric(
        "concurrency", "Requests at a time", "", "higher", "traffic", "",
        "Requests in flight in each timed round: as many as the workload asks for.",
        unjudged=_USE, projected="carried",
    ),
    Metric(
        "cpu_wait_share", "Waiting for a core", "", "lower", "environment", "",
        "Share of a timed round in which our threads stood ready while another process or the"
        " host had the core; rounds above 5 % are marked, never dropped.",
        unjudged=_USE, shown_in="%", most=1.0,
    ),
    Metric(
        "prepare_s", "Preparation", "s", "lower", "preparation", "",
        "Seconds that loading and applying the techniques took.",
        short="Prep.", projected="stays",
        places=Places(trials_speed=8),
    ),
    Metric(
        "sensitivity_kl", "Sensitivity", "nat", "lower", "preparation", "",
        "KL per token, on calibration data, of the model with one matrix alone in so many bits:"
        " what automatic mixed precision chose by; the condition names matrix and format.",
    ),
    Metric(
        "chosen_bits", "Chosen precision", "bit", "lower", "preparation", "",
        "Bits of a matrix's codes that automatic mixed precision chose; 16 means left as it was.",
    ),
    Metric(
        "learning_items", "Learned from", "", "lower", "preparation", "",
        "Tokens, or images, that calibration or training read; the condition says which, and"
        " whether they are of your data, bundled, written by the model itself, or random.",
    ),
    Metric(
        "mbu", "Memory bandwidth used", "", "higher", "limit", "",
        "Share of the machine's reading bandwidth that decoding reaches: the weights and the KV"
        " cache that a step must read, over the time per token and the calibrated bandwidth (MBU).",
        unjudged=_USE, shown_in="%",
    ),
    Metric(
        "mfu", "Matrix peak used", "", "higher", "limit", "",
        "Share of the machine's matrix peak that reading the prompt reaches: its operations over"
        " the time to the first token and the calibrated peak of the format (MFU).",
        unjudged=_USE, shown_in="%",
    ),
)  # fmt: skip
