"""Metrics of time: latency and throughput."""

from __future__ import annotations

from core.metrics.metric import Metric, Places

SPEED = (
    Metric(
        "ttft_s", "Time to first token", "s", "lower", "latency", "latency",
        "Seconds from handing over the prompt until the first new token exists.",
        short="TTFT", judged="timed", projected="roofline",
        places=Places(
            run_table=1, trials_overview=1, trials_speed=1, trials_phone=6, live_text=4,
            plan_text=2, by_round=3, by_prompt_length=1, note_of_origin=1, decides=4,
        ),
    ),
    Metric(
        "tpot_s", "Time per output token", "s", "lower", "latency", "latency",
        "Seconds between two new tokens of one sequence after the first.",
        short="TPOT", judged="timed", projected="roofline",
        places=Places(
            run_table=2, trials_overview=2, trials_speed=2, trials_phone=1, live_text=1,
            plan_text=1, by_round=1, compare_chart=3, by_prompt_length=2, note_of_origin=2,
            decides=3,
        ),
    ),
    Metric(
        "latency_s", "Latency, end to end", "s", "lower", "latency", "latency",
        "Median seconds for one whole request (prompt and output) or one image batch, waiting for"
        " its turn included.",
        short="Latency", judged="timed", projected="roofline",
        places=Places(
            run_table=5, trials_speed=3, live_image=1, by_round=4, tradeoff_cost=1,
            by_concurrency=3, decides=1,
        ),
    ),
    Metric(
        "latency_p95_s", "Latency, p95", "s", "lower", "latency", "latency",
        "95th percentile of the seconds for one whole request (prompt and output) or one image"
        " batch.",
        quantile=0.95, short="p95", judged="timed", projected="roofline",
        places=Places(
            run_table=6, trials_speed=4, plan_image=1, tradeoff_cost=2, sensor=1, note_of_origin=4,
            decides=2,
        ),
    ),
    Metric(
        "latency_p99_s", "Latency, p99", "s", "lower", "latency", "latency",
        "99th percentile of the seconds for one whole request; only where at least 100 were"
        " timed.",
        quantile=0.99, short="p99", judged="timed",
    ),
    Metric(
        "tokens_per_s", "Throughput", "1/s", "higher", "throughput", "throughput",
        "New tokens per second over all sequences of the batch, prompt reading included.",
        short="Tokens/s", judged="timed", shown_in="tokens/s", projected="roofline",
        places=Places(
            run_table=3, trials_overview=3, trials_speed=5, trials_phone=2, live_text=2,
            by_round=2, compare_chart=1, by_concurrency=1, note_of_origin=3, decides=1,
        ),
    ),
    Metric(
        "examples_per_s", "Throughput", "1/s", "higher", "throughput", "throughput",
        "Images classified per second at the stated batch.",
        short="Images/s", judged="timed", shown_in="images/s",
        places=Places(
            run_table=4, trials_overview=4, trials_speed=6, trials_phone=3, live_image=2,
            plan_image=2, by_round=5, compare_chart=2, by_concurrency=2, sensor=2, decides=2,
        ),
    ),
)  # fmt: skip
